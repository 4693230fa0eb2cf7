"""The gateway of one run: whose calls they are, the run's model, its bill, and what it answers when nobody can."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from app.config.schema import Degrade
from app.records import Payer
from app.services.gateway.gateway import NOBODY, ModelGateway, last
from app.services.gateway.recover import Attempt
from graphs.context import Span, Trace
from graphs.errors import QuotaExhausted, UpstreamError
from graphs.types import Completion, Delta, FinishReason, ModelInfo, ModelRequest, Task, Usage

EXTRACTIVE: Final = "extractive"
_REFUSAL_RETRY_S: Final = 3_600.0


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One attempt of a run as it is billed. One that failed has a code, and the usage of what it still consumed."""

    model: str
    model_version: str
    provider: str
    task: Task
    usage: Usage
    latency_ms: float
    first_token_ms: float | None
    finish_reason: FinishReason | None
    error_code: str | None = None
    cost_micros: int = 0
    route: str = ""
    attempt: int = 1


class MeteredGateway:
    """Fills in the run's model, times every call as a span and keeps the run's bill.

    The bill lives here and not in graph state, so a run that fails after the model spoke still has it. Describing and
    counting follow the same choice of model as calling. With a `safe_answer`, a call that no model can serve before
    anything was said is answered without one: from the passages where there are some, else by that sentence.
    """

    def __init__(
        self,
        gateway: ModelGateway,
        trace: Trace,
        model: str | None = None,
        *,
        payer: Payer = NOBODY,
        safe_answer: str | None = None,
    ) -> None:
        self._gateway, self._trace, self._model, self._payer = gateway, trace, model, payer
        self._safe_answer = safe_answer
        self._calls: list[ModelCall] = []
        self._reasons: list[str] = []
        self._step: Degrade | None = None
        self.failed_over: UpstreamError | None = None
        """Why the run was answered without a model; None while models answer."""

    @property
    def calls(self) -> tuple[ModelCall, ...]:
        """Finished attempts in the order in which they ended, failed and abandoned ones among them."""
        return tuple(self._calls)

    @property
    def usage(self) -> Usage:
        return sum((call.usage for call in self._calls), Usage())

    @property
    def cost_micros(self) -> int:
        return sum(call.cost_micros for call in self._calls)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why these models were chosen, in words."""
        return tuple(dict.fromkeys(self._reasons))

    @property
    def degraded(self) -> str:
        """What the budget's ladder changed for this run, in words; empty for nothing."""
        return "" if self._step is None else told(self._step)

    async def settle_in(self) -> None:
        """Look once at the budget's ladder; the run keeps to the step that it finds."""
        self._step = await self._gateway.recovery.desk.rung(self._payer)

    def describe(self, model: str | None = None, task: Task = "chat") -> ModelInfo:
        info = self._gateway.describe(self._named(model, task), task)
        if self._step is not None and self._step.context_tokens is not None:
            info = replace(info, context_tokens=min(info.context_tokens, self._step.context_tokens))
        return info

    def count_tokens(self, text: str, model: str | None = None, task: Task = "chat") -> int:
        return self._gateway.count_tokens(text, self._named(model, task), task)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        """As the port says. Raises QuotaExhausted too, where the budget's ladder ends in a refusal."""
        if self._refuses(request.task):
            raise QuotaExhausted("the month's budget is used up", retry_after_s=_REFUSAL_RETRY_S)
        name = self._gateway.router.name_for(self._named(request.model, request.task), request.task)
        request = replace(request, model=name)
        attempts: list[Attempt] = []
        texts: list[str] = []
        completion: Completion | None = None
        with self._trace.span(name, "model", inputs=_inputs(request)) as span:
            try:
                plan, _ = self._gateway.plan(request, self._payer)
                self._reasons += plan.reasons
                async with aclosing(self._gateway.stream(request, self._payer, attempts.append)) as items:
                    async for item in items:
                        if isinstance(item, Delta):
                            texts.append(item.text)
                        else:
                            completion = item
                        yield item
            except UpstreamError as error:
                if texts or self._safe_answer is None:
                    raise
                self.failed_over = error
                async for item in self._without_model(request, self._safe_answer):
                    if isinstance(item, Completion):
                        completion = item
                    yield item
            finally:
                self._calls += (_called(attempt) for attempt in attempts)
                _describe(span, attempts, completion, "".join(texts), request.task)

    async def complete(self, request: ModelRequest) -> Completion:
        return await last(self.stream(request))

    def _named(self, model: str | None, task: Task) -> str | None:
        """The run's own model unless the request names one; the ladder's goes before both."""
        if self._step is not None:
            if self._step.answer == EXTRACTIVE and task == "rag":
                return EXTRACTIVE
            if self._step.route is not None:
                return self._step.route
        return model or self._model

    def _refuses(self, task: Task) -> bool:
        step = self._step
        return step is not None and (step.answer == "refuse" or (step.answer == EXTRACTIVE and task != "rag"))

    async def _without_model(self, request: ModelRequest, sentence: str) -> AsyncGenerator[Delta | Completion, None]:
        """The floor: quotes from the passages where the run has some, else a fixed sentence."""
        floor = self._gateway.router.targets.get(EXTRACTIVE)
        if request.task == "rag" and request.grounding and floor is not None:
            async with aclosing(floor.provider.stream(replace(request, model=EXTRACTIVE))) as items:
                async for item in items:
                    yield item
            return
        yield Delta(sentence)
        yield Completion(sentence, "none", "", "pilothouse", Usage(), "stop")


def told(step: Degrade) -> str:
    """A step of the ladder in words, for the answer card."""
    parts = [
        f"route {step.route}" if step.route is not None else "",
        f"at most {step.context_tokens} tokens of prompt" if step.context_tokens is not None else "",
        "cached answers" if step.cached else "",
        f"answer: {step.answer}" if step.answer is not None else "",
    ]
    return f"from {step.at:.0%} of the budget: " + ", ".join(filter(None, parts))


def _called(attempt: Attempt) -> ModelCall:
    bill = attempt.bill
    return ModelCall(
        model=attempt.target.name,
        model_version=bill.model_version,
        provider=attempt.target.info.provider,
        task=attempt.task,
        usage=bill.usage,
        latency_ms=bill.latency_ms,
        first_token_ms=bill.first_token_ms,
        finish_reason=attempt.finish_reason,
        error_code=bill.error_code or None,
        cost_micros=bill.cost_micros,
        route=attempt.route,
        attempt=attempt.number,
    )


def _describe(span: Span, attempts: list[Attempt], completion: Completion | None, heard: str, task: Task) -> None:
    usage = sum((attempt.bill.usage for attempt in attempts), Usage())
    answered = attempts[-1] if attempts else None
    span.set(
        model=completion.model if completion else (answered.target.name if answered else ""),
        model_version=answered.bill.model_version if answered else "",
        provider=answered.target.info.provider if answered else "",
        task=task,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        tokens_estimated=usage.estimated,
        cost_micros=sum(attempt.bill.cost_micros for attempt in attempts),
        first_token_ms=answered.bill.first_token_ms if answered else None,
        finish_reason=answered.finish_reason if answered else None,
        attempts=[
            {
                "model": attempt.target.name,
                "outcome": attempt.bill.outcome,
                "errorCode": attempt.bill.error_code,
                "latencyMs": attempt.bill.latency_ms,
            }
            for attempt in attempts
        ],
        outputs={
            "text": completion.text if completion else heard,
            "tool_calls": [asdict(proposal) for proposal in completion.tool_calls] if completion else [],
        },
    )


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
