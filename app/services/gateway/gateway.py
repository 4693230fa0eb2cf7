"""Every model behind one door: routes a call, tries until one answers, books each attempt."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final, Self

from app.config.price import FREE
from app.config.schema import RouteConfig
from app.records import Payer
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.attempt import Attempt, Call, Ended
from app.services.gateway.cache import Cache
from app.services.gateway.continuation import continued, marked
from app.services.gateway.embedding import MINILM_NAME, refuse_batch
from app.services.gateway.patience import Patience
from app.services.gateway.ports import Desk, OpenDesk
from app.services.gateway.provider import Embedded, Embeds, Provider, Reranked, Reranks
from app.services.gateway.recall import recalled, through
from app.services.gateway.recover import Recovery
from app.services.gateway.rerank import ALONE_TIMEOUT_S, reranking
from app.services.gateway.rerank import refuse_batch as refuse_texts
from app.services.gateway.retries import RetryBudget
from app.services.gateway.routes import Need, Plan, Router, Target
from app.services.gateway.tokens import MESSAGE_TOKENS, texts_of
from graphs.errors import Forbidden, PilothouseError, UpstreamError, UpstreamTimeout
from graphs.types import Completion, Delta, ModelInfo, ModelRequest, Task

NOBODY: Final = Payer("", "")
"""Who pays where nobody is billed: notebooks, tests of graphs."""


class ModelGateway:
    """The typed door, for graphs and whatever expects LangChain. Owns the providers: closing it closes them."""

    def __init__(self, router: Router, recovery: Recovery, cache: Cache | None = None) -> None:
        """`cache` None: no route keeps answers."""
        self.router, self.recovery, self.cache = router, recovery, cache

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
        """The models that answer; those that embed or re-rank are not among them."""
        targets = self.router.targets.values()
        return tuple(target.info for target in targets if not isinstance(target.provider, Embeds | Reranks))

    def describe(self, model: str | None = None, task: Task = "chat") -> ModelInfo:
        """The first model of the route, with the smallest window of all: a prompt for it fits whichever answers."""
        targets = self.router.models_of(self.router.name_for(model, task))
        smallest = min(target.info.context_tokens for target in targets)
        info = targets[0].info
        return info if info.context_tokens == smallest else replace(info, context_tokens=smallest)

    def count_tokens(self, text: str, model: str | None = None, task: Task = "chat") -> int:
        return self.router.models_of(self.router.name_for(model, task))[0].provider.count_tokens(text)

    def plan(self, request: ModelRequest, payer: Payer, granted: frozenset[str] = frozenset()) -> tuple[Plan, int]:
        """How the request would be tried, and how many tokens its prompt has at most. Raises as `plan_on` does.

        `granted` are models that may be asked though the payer's own list does not name them.
        """
        name = self.router.name_for(request.model, request.task)
        count = self.router.models_of(name)[0].provider.count_tokens
        read = sum(count(text) + MESSAGE_TOKENS for text in texts_of(request.messages))
        prompt_tokens = read + MESSAGE_TOKENS
        plan = self.plan_on(name, request.task, prompt_tokens, request.max_tokens or 0, payer, granted)
        return plan, prompt_tokens

    def plan_on(
        self,
        name: str,
        task: Task,
        prompt_tokens: int,
        output_tokens: int,
        payer: Payer,
        granted: frozenset[str] = frozenset(),
    ) -> Plan:
        """How a call on that route or model would be tried. Raises as Router.plan does, and SwitchedOff where all that
        the payer may use of it is switched off."""
        desk = self.recovery.desk
        allowed = desk.allowed(payer)
        if allowed is not None:
            allowed |= granted
        try:
            return self.router.plan(name, Need(task, prompt_tokens, output_tokens, allowed))
        except Forbidden:
            off = desk.barred(payer, [target.name for target in self.router.models_of(name)])
            if off is None:
                raise
            raise off from None

    def stream(
        self, request: ModelRequest, payer: Payer = NOBODY, report: Callable[[Attempt], None] | None = None
    ) -> AsyncGenerator[Delta | Completion, None]:
        """As the port says. `report` hears of every attempt when it ends. Raises at once what `plan_on` raises."""
        plan, prompt_tokens = self.plan(request, payer)
        return self.follow(plan, prompt_tokens, request, payer, report)

    def follow(
        self,
        plan: Plan,
        prompt_tokens: int,
        request: ModelRequest,
        payer: Payer,
        report: Callable[[Attempt], None] | None = None,
        *,
        streamed: bool = True,
    ) -> AsyncGenerator[Delta | Completion, None]:
        """The request by a plan that `plan` made. Not `streamed`, all items come at the end, and what breaks off in the
        middle can be tried again."""
        call = self._call(plan, prompt_tokens, request, payer, report, streamed=streamed)
        if self.cache is None:
            return self.recovery.stream(call)
        return through(self.cache, self.recovery, call, request)

    async def recall(
        self, request: ModelRequest, payer: Payer, report: Callable[[Attempt], None] | None = None
    ) -> Completion | None:
        """An answer that was kept for just this request, whatever its age; None where there is none."""
        if self.cache is None:
            return None
        try:
            plan, prompt_tokens = self.plan(request, payer)
        except PilothouseError:
            return None  # a route that cannot serve the request now has nothing for it either
        call = self._call(plan, prompt_tokens, request, payer, report, streamed=True)
        return await recalled(self.cache, self.recovery, call, request)

    def _call(
        self,
        plan: Plan,
        prompt_tokens: int,
        request: ModelRequest,
        payer: Payer,
        report: Callable[[Attempt], None] | None,
        *,
        streamed: bool,
    ) -> Call[Delta | Completion]:
        config = plan.config

        def opened(target: Target, cap: int | None) -> AsyncGenerator[Delta | Completion, None]:
            return timed(target, _for(target, request, cap), config)

        def resumed(target: Target, cap: int | None, prefix: str) -> AsyncGenerator[Delta | Completion, None]:
            rest = continued(_for(target, request, cap), prefix)
            return marked(timed(target, rest, config), prefix, target.name)

        return Call(
            payer=payer,
            plan=plan,
            task=request.task,
            streamed=streamed,
            prompt_tokens=prompt_tokens,
            output_tokens=request.max_tokens,
            open=opened,
            read=_read,
            count=_count,
            report=report,
            # Half a JSON value cannot be gone on with: a grammar begins at its beginning.
            resume=resumed if request.response_schema is None else None,
        )

    async def complete(self, request: ModelRequest, payer: Payer = NOBODY) -> Completion:
        plan, prompt_tokens = self.plan(request, payer)
        return await last(self.follow(plan, prompt_tokens, request, payer, streamed=False))

    async def embed(self, texts: Sequence[str], model: str | None = None, payer: Payer = NOBODY) -> Embedded:
        """A vector for each text; without a model's name from the embedded one.

        Raises Invalid for a model that does not embed and for no texts or too many, and as `stream` does.
        """
        refuse_batch(texts)
        name = model or MINILM_NAME
        count = self.router.models_of(name)[0].provider.count_tokens
        counts = await asyncio.to_thread(lambda: [count(text) for text in texts])
        plan = self.plan_on(name, "embedding", max(counts), 0, payer)
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

    async def rerank(
        self,
        question: str,
        texts: Sequence[str],
        model: str,
        payer: Payer = NOBODY,
        report: Callable[[Attempt], None] | None = None,
    ) -> Reranked:
        """How well each text answers the question, by a re-rank model or a route of such.

        Raises Invalid for a model that does not re-rank and for no texts or too many, and as `stream` does.
        """
        refuse_texts(question, texts)
        count = self.router.models_of(model)[0].provider.count_tokens
        asked, *counts = await asyncio.to_thread(lambda: [count(text) for text in (question, *texts)])
        plan = self.plan_on(model, "rerank", asked + max(counts), 0, payer)
        timeout_s = plan.config.timeout_s
        if model not in self.router.routes:
            timeout_s = min(timeout_s, ALONE_TIMEOUT_S)
        call: Call[Reranked] = Call(
            payer=payer,
            plan=plan,
            task="rerank",
            streamed=False,
            prompt_tokens=sum(counts) + asked * len(texts),
            output_tokens=0,
            open=lambda target, _cap: reranking(target, question, texts, timeout_s),
            read=lambda item: (False, "", Ended(item.usage, "stop", item.model_version)),
            count=lambda _target, _text: 0,
            report=report,
        )
        async with aclosing(self.recovery.stream(call)) as items:
            (reranked,) = [item async for item in items]
        return reranked

    async def forget(self, tenant_id: str) -> None:
        """Drop the answers that are kept of a tenant, since they may quote what it has deleted. Raises ForgetFailed."""
        if self.cache is not None:
            await self.cache.forget(tenant_id)

    async def close(self) -> None:
        await self.recovery.close()
        if self.cache is not None:
            await self.cache.close()
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
        return bool(item.text), item.text, None
    return False, "", Ended(item.usage, item.finish_reason, item.model_version)


def _count(target: Target, text: str) -> int:
    return target.provider.count_tokens(text) if text else 0


def _for(target: Target, request: ModelRequest, cap: int | None) -> ModelRequest:
    limit = request.max_tokens if cap is None else min(request.max_tokens or cap, cap)
    return replace(request, model=target.name, max_tokens=limit)


def timed(target: Target, request: ModelRequest, config: RouteConfig) -> AsyncGenerator[Delta | Completion, None]:
    """The provider's stream within the route's deadlines."""
    return Patience(target.name, config).kept(target.provider.stream(request))


async def embedding(target: Target, texts: Sequence[str], timeout_s: float) -> AsyncGenerator[Embedded, None]:
    """The one item of an embedding call, within the route's deadline."""
    assert isinstance(target.provider, Embeds)  # the plan refuses every other
    try:
        async with asyncio.timeout(timeout_s):
            embedded = await target.provider.embed(texts)
    except TimeoutError as error:
        raise UpstreamTimeout(f"{target.name} took too long for its vectors") from error
    yield embedded
