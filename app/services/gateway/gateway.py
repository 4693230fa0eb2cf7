"""Every model behind one door, and the meter that one run reads.

The gateway is the one layer that may retry; it does not yet. Which model serves which task is decided where it is made.
"""

import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any

from app.services.gateway.openai_wire import estimated_usage
from app.services.gateway.provider import Provider
from graphs.context import Span, Trace
from graphs.errors import Missing, PilothouseError, UpstreamError, UpstreamTimeout
from graphs.types import Completion, Delta, FinishReason, ModelInfo, ModelRequest, Task, Usage


class ModelGateway:
    """Routes a call to the provider of its model. Owns the providers: closing it closes them.

    `default` is the model of a task for requests that name none; `by_task` overrides it task by task.
    """

    def __init__(
        self, providers: Mapping[str, Provider], default: str, by_task: Mapping[Task, str] | None = None
    ) -> None:
        self._providers = dict(providers)
        self._default, self._by_task = default, dict(by_task or {})
        for name in {default, *self._by_task.values()}:
            self._provider(name)

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        return tuple(provider.info for provider in self._providers.values())

    def default_for(self, task: Task) -> str:
        """The name of the model that serves `task` when a request names none."""
        return self._by_task.get(task, self._default)

    def describe(self, model: str | None = None, task: Task = "chat") -> ModelInfo:
        return self._provider(model or self.default_for(task)).info

    def count_tokens(self, text: str, model: str | None = None, task: Task = "chat") -> int:
        return self._provider(model or self.default_for(task)).count_tokens(text)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        provider = self._provider(request.model or self.default_for(request.task))
        # Closing it here, not when the collector comes by, is what stops the upstream when the caller goes.
        async with aclosing(provider.stream(request)) as items:
            async for item in items:
                yield item

    async def complete(self, request: ModelRequest) -> Completion:
        return await _last(self.stream(request))

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()

    def _provider(self, name: str) -> Provider:
        try:
            return self._providers[name]
        except KeyError:
            raise Missing(f"there is no model named {name!r}", field="model") from None


async def _last(items: AsyncGenerator[Delta | Completion, None]) -> Completion:
    completion: Completion | None = None
    async with aclosing(items):
        async for item in items:  # to its end: leaving at the completion would look like an abandoned call
            if isinstance(item, Completion):
                completion = item
    if completion is None:
        raise UpstreamError("the model's stream ended without a completion")
    return completion


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of a run as it is billed. A call that failed has a code, and the usage of what it still consumed."""

    model: str
    model_version: str
    provider: str
    task: Task
    usage: Usage
    latency_ms: float
    first_token_ms: float | None
    finish_reason: FinishReason | None
    error_code: str | None = None


class MeteredGateway:
    """The gateway of one run: fills in the run's model, times every call as a span and keeps its bill.

    The bill lives here and not in graph state, so a run that fails after the model spoke still has it. Describing and
    counting follow the same choice of model as calling.
    """

    def __init__(
        self,
        gateway: ModelGateway,
        trace: Trace,
        model: str | None = None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gateway, self._trace, self._model, self._monotonic = gateway, trace, model, monotonic
        self._calls: list[ModelCall] = []

    @property
    def calls(self) -> tuple[ModelCall, ...]:
        """Finished calls in the order in which they ended, failed and abandoned ones among them."""
        return tuple(self._calls)

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self._calls), Usage())

    def describe(self, model: str | None = None, task: Task = "chat") -> ModelInfo:
        return self._gateway.describe(model or self._model, task)

    def count_tokens(self, text: str, model: str | None = None, task: Task = "chat") -> int:
        return self._gateway.count_tokens(text, model or self._model, task)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        name = request.model or self._model or self._gateway.default_for(request.task)
        request = replace(request, model=name)
        meter = _Meter(self._gateway, request, self.describe(name), self._monotonic)
        with self._trace.span(name, "model", inputs=_inputs(request)) as span:
            try:
                async with aclosing(self._gateway.stream(request)) as items:
                    async for item in items:
                        meter.hear(item)
                        yield item
            except BaseException as error:
                meter.error = error
                raise
            finally:
                self._calls.append(call := meter.call())
                meter.describe(span, call)

    async def complete(self, request: ModelRequest) -> Completion:
        return await _last(self.stream(request))


class _Meter:
    """What one call has given so far, readable at whatever point it ends."""

    def __init__(
        self, gateway: ModelGateway, request: ModelRequest, info: ModelInfo, monotonic: Callable[[], float]
    ) -> None:
        self._gateway, self._request, self._info, self._monotonic = gateway, request, info, monotonic
        self._started = monotonic()
        self._first: float | None = None
        self._texts: list[str] = []
        self._completion: Completion | None = None
        self.error: BaseException | None = None

    def hear(self, item: Delta | Completion) -> None:
        if self._first is None:
            self._first = self._monotonic()
        if isinstance(item, Delta):
            self._texts.append(item.text)
        else:
            self._completion = item

    def call(self) -> ModelCall:
        info, completion = self._info, self._completion
        return ModelCall(
            model=info.name,
            model_version=completion.model_version if completion else info.version,
            provider=info.provider,
            task=self._request.task,
            usage=completion.usage if completion else self._spent(),
            latency_ms=round((self._monotonic() - self._started) * 1e3, 3),
            first_token_ms=None if self._first is None else round((self._first - self._started) * 1e3, 3),
            finish_reason=completion.finish_reason if completion else None,
            error_code=None if completion else _code(self.error),
        )

    def _spent(self) -> Usage:
        """What a call without a completion consumed: once the model reads the prompt, vendors bill it.

        A refusal or a broken connection before the first token is taken for a call that no model read; one that was
        given up (by a deadline or by its caller) for one that was being read.
        """
        given_up = isinstance(self.error, UpstreamTimeout) or not isinstance(self.error, Exception)
        if not self._texts and not given_up:
            return Usage()
        return estimated_usage(
            self._request.messages,
            "".join(self._texts),
            lambda text: self._gateway.count_tokens(text, self._request.model),
        )

    def describe(self, span: Span, call: ModelCall) -> None:
        completion = self._completion
        span.set(
            model=call.model,
            model_version=call.model_version,
            provider=call.provider,
            task=call.task,
            input_tokens=call.usage.input_tokens,
            output_tokens=call.usage.output_tokens,
            tokens_estimated=call.usage.estimated,
            first_token_ms=call.first_token_ms,
            finish_reason=call.finish_reason,
            outputs={
                "text": completion.text if completion else "".join(self._texts),
                "tool_calls": [asdict(proposal) for proposal in completion.tool_calls] if completion else [],
            },
        )


def _code(error: BaseException | None) -> str:
    """The failure's code; anything else than an error of ours that ends a call is a cancellation or a closed stream."""
    if isinstance(error, PilothouseError):
        return error.code
    return "internal_error" if isinstance(error, Exception) else "cancelled"


def _inputs(request: ModelRequest) -> dict[str, Any]:
    return {
        "messages": [
            {"role": message.role, "content": message.content}
            | ({"tool_calls": [asdict(call) for call in message.tool_calls]} if message.tool_calls else {})
            for message in request.messages
        ],
        "tools": [spec.name for spec in request.tools],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
        "schema": request.response_schema,
    }
