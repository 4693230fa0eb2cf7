"""Every model behind one door: routes a call, tries until one answers, books each attempt."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Self

from app.config.price import FREE
from app.config.schema import RouteConfig
from app.records import Payer
from app.services.gateway.breaker import Breaker, BreakerPolicy, RetryBudget
from app.services.gateway.embedding import MINILM_NAME, refuse_batch
from app.services.gateway.ports import Desk, OpenDesk
from app.services.gateway.provider import Embedded, Embeds, Provider
from app.services.gateway.recover import Attempt, Call, Ended, Recovery
from app.services.gateway.routes import Need, Plan, Router, Target
from app.services.gateway.tokens import MESSAGE_TOKENS, texts_of
from graphs.errors import UpstreamError, UpstreamTimeout
from graphs.types import Completion, Delta, ModelInfo, ModelRequest, Task

NOBODY: Final = Payer("", "")
"""Who pays where nobody is billed: notebooks, tests of graphs."""


class ModelGateway:
    """The typed door, for graphs and whatever expects LangChain. Owns the providers: closing it closes them."""

    def __init__(self, router: Router, recovery: Recovery) -> None:
        self.router, self.recovery = router, recovery

    @classmethod
    def of(
        cls,
        providers: Mapping[str, Provider],
        default: str,
        by_task: Mapping[Task, str] | None = None,
        *,
        desk: Desk | None = None,
        retries: int = 0,
    ) -> Self:
        """A gateway over providers alone: no routes, no prices. Raises Missing for a default that does not exist."""
        targets = {name: Target(name, provider, FREE, Breaker(BreakerPolicy())) for name, provider in providers.items()}
        routes = {name: RouteConfig(candidates=(name,), retries=retries) for name in providers}
        router = Router(targets, routes, members=lambda name: (name,), by_task=by_task or {}, default=default)
        return cls(router, Recovery(desk or OpenDesk(), retries=RetryBudget(0.1, 10)))

    @property
    def models(self) -> tuple[ModelInfo, ...]:
        """The models that answer; those that embed are not among them."""
        targets = self.router.targets.values()
        return tuple(target.info for target in targets if not isinstance(target.provider, Embeds))

    def describe(self, model: str | None = None, task: Task = "chat") -> ModelInfo:
        """The first model of the route, with the smallest window of all: a prompt for it fits whichever answers."""
        targets = self.router.models_of(self.router.name_for(model, task))
        smallest = min(target.info.context_tokens for target in targets)
        info = targets[0].info
        return info if info.context_tokens == smallest else replace(info, context_tokens=smallest)

    def count_tokens(self, text: str, model: str | None = None, task: Task = "chat") -> int:
        return self.router.models_of(self.router.name_for(model, task))[0].provider.count_tokens(text)

    def plan(self, request: ModelRequest, payer: Payer) -> tuple[Plan, int]:
        """How the request would be tried, and how many tokens its prompt has at most. Raises as Router.plan does."""
        name = self.router.name_for(request.model, request.task)
        read = sum(self.count_tokens(text, name) + MESSAGE_TOKENS for text in texts_of(request.messages))
        allowed = self.recovery.desk.allowed(payer)
        need = Need(request.task, read + MESSAGE_TOKENS, request.max_tokens or 0, allowed)
        return self.router.plan(name, need), need.prompt_tokens

    async def stream(
        self, request: ModelRequest, payer: Payer = NOBODY, report: Callable[[Attempt], None] | None = None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """As the port says. `report` hears of every attempt when it ends."""
        plan, prompt_tokens = self.plan(request, payer)

        def opened(target: Target, cap: int | None) -> AsyncGenerator[Delta | Completion, None]:
            limit = request.max_tokens if cap is None else min(request.max_tokens or cap, cap)
            return timed(target, replace(request, model=target.name, max_tokens=limit), plan.config)

        call: Call[Delta | Completion] = Call(
            payer=payer,
            plan=plan,
            task=request.task,
            streamed=True,
            prompt_tokens=prompt_tokens,
            output_tokens=request.max_tokens,
            open=opened,
            read=_read,
            count=lambda target, text: target.provider.count_tokens(text) if text else 0,
            report=report,
        )
        # Closing it here, not when the collector comes by, is what stops the upstream when the caller goes.
        async with aclosing(self.recovery.stream(call)) as items:
            async for item in items:
                yield item

    async def complete(self, request: ModelRequest, payer: Payer = NOBODY) -> Completion:
        return await last(self.stream(request, payer))

    async def embed(self, texts: Sequence[str], model: str | None = None, payer: Payer = NOBODY) -> Embedded:
        """A vector for each text; without a model's name from the embedded one.

        Raises Invalid for a model that does not embed and for no texts or too many, and as `stream` does.
        """
        refuse_batch(texts)
        name = model or MINILM_NAME
        count = self.router.models_of(name)[0].provider.count_tokens
        counts = await asyncio.to_thread(lambda: [count(text) for text in texts])
        need = Need("embedding", max(counts), 0, self.recovery.desk.allowed(payer))
        plan = self.router.plan(name, need)
        call: Call[Embedded] = Call(
            payer=payer,
            plan=plan,
            task="embedding",
            streamed=False,
            prompt_tokens=sum(counts),
            output_tokens=0,
            open=lambda target, _cap: embedding(target, texts, plan.config.timeout_s),
            read=lambda item: (False, "", Ended(item.usage, "stop", item.model_version)),
            count=lambda _target, _text: 0,
        )
        async with aclosing(self.recovery.stream(call)) as items:
            (embedded,) = [item async for item in items]
        return embedded

    async def close(self) -> None:
        await self.recovery.close()
        for target in self.router.targets.values():
            await target.provider.close()


async def last(items: AsyncGenerator[Delta | Completion, None]) -> Completion:
    """The completion of a stream. Raises UpstreamError where there is none."""
    completion: Completion | None = None
    async with aclosing(items):
        async for item in items:  # to its end: leaving at the completion would look like an abandoned call
            if isinstance(item, Completion):
                completion = item
    if completion is None:
        raise UpstreamError("the model's stream ended without a completion")
    return completion


def _read(item: Delta | Completion) -> tuple[bool, str, Ended | None]:
    if isinstance(item, Delta):
        return True, item.text, None
    return False, "", Ended(item.usage, item.finish_reason, item.model_version)


async def timed(target: Target, request: ModelRequest, config: RouteConfig) -> AsyncGenerator[Delta | Completion, None]:
    """The provider's stream within the route's deadlines."""
    loop = asyncio.get_running_loop()
    whole = loop.time() + config.timeout_s
    until = min(whole, loop.time() + (config.first_token_timeout_s or config.timeout_s))
    waited = "the first token"
    async with aclosing(target.provider.stream(request)) as items:
        while True:
            try:
                async with asyncio.timeout_at(until):
                    item = await anext(items)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                waited = "the whole answer" if until == whole else waited
                raise UpstreamTimeout(f"{target.name} took too long for {waited}") from error
            yield item
            until, waited = min(whole, loop.time() + config.between_tokens_timeout_s), "the next token"


async def embedding(target: Target, texts: Sequence[str], timeout_s: float) -> AsyncGenerator[Embedded, None]:
    """The one item of an embedding call, within the route's deadline."""
    assert isinstance(target.provider, Embeds)  # the plan refuses every other
    try:
        async with asyncio.timeout(timeout_s):
            embedded = await target.provider.embed(texts)
    except TimeoutError as error:
        raise UpstreamTimeout(f"{target.name} took too long for its vectors") from error
    yield embedded
