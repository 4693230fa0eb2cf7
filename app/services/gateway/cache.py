"""The caches in front of the models: what may be kept, how long it is fresh, and what is found again.

Each route has its own switches; a route that names no cache is never looked up. A hit asks no model: it costs nothing,
and the ledger has a row of its own for it (outcome `cached`, no tokens, no money), so that its sums still are what the
providers bill. The answer's own usage is told as it was when the model gave it.

Of identical calls at one time the first asks the models and the others of its process wait for what it keeps; another
process asks for itself. Whose wait is over, or whose leader kept nothing, asks for itself too.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.records import Bill, Payer
from app.services.gateway.answers import Answer, AnswerCache, Asked, asked, tenant_hash
from app.services.gateway.attempt import Attempt
from app.services.gateway.routes import Plan, Target
from app.services.gateway.semantic import SemanticAnswers
from graphs.types import Task, Usage

Kind = Literal["exact", "semantic"]
SKEW_S: Final = 60.0  # an answer from further in the future than clocks differ is not believed
AGED_S: Final = 7 * 86_400.0  # how long answers are kept where the degrade ladder gives them whatever their age
MAX_PENDING: Final = 64  # answers on their way into the semantic cache; beyond it the next ones are not kept


@dataclass(frozen=True, slots=True)
class Hit:
    """An answer found again. `cosine` is None for an exact repeat."""

    answer: Answer
    kind: Kind
    target: Target
    age_s: float
    cosine: float | None = None

    @property
    def told(self) -> str:
        """What the answer card says of it."""
        near = "" if self.cosine is None else f", to a question with cosine {self.cosine:.3f}"
        return f"answered from the {self.kind} cache, {self.age_s:.0f} s after {self.target.name} said it{near}"

    def free(self, payer: Payer, plan: Plan, task: Task, *, streamed: bool, latency_ms: float) -> Attempt:
        """As the ledger and the run's record have it: no model was asked, nothing was used."""
        took_ms = round(latency_ms, 3)
        bill = Bill("cached", Usage(), 0, took_ms, took_ms, model_version=self.answer.model_version)
        return Attempt(payer, self.target, plan.route, task, 0, streamed, bill, "stop")


class Cache:
    """Looks up and keeps answers for the routes that ask for it."""

    def __init__(
        self,
        exact: AnswerCache,
        semantic: SemanticAnswers | None,
        routes: Mapping[str, str],
        *,
        aged: bool = False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`routes` has, for each route with a cache, a digest of what its models are: another model, another answer.

        `aged` keeps answers beyond their time, for a ladder that gives them whatever their age.
        """
        self._exact, self._semantic, self._routes = exact, semantic, dict(routes)
        self._aged, self.now = aged, now
        self._observers: list[Callable[[str, str], None]] = []
        self._keeping: set[asyncio.Task[None]] = set()
        self._led: dict[str, asyncio.Future[Answer | None]] = {}

    def observe(self, observer: Callable[[str, str], None]) -> None:
        """Have `observer` told of every look: the route, and "exact", "semantic" or "miss"."""
        self._observers.append(observer)

    def covers(self, plan: Plan) -> bool:
        return plan.route in self._routes

    def asked(self, payer: Payer, plan: Plan, call: Mapping[str, Any], question: str) -> Asked | None:
        """The name of a call on that route, None where it has none. `call` is all of it but the question."""
        return asked(payer.tenant_id, f"{plan.route} {self._routes[plan.route]}", call, question)

    async def look(self, asked: Asked, plan: Plan, *, any_age: bool = False) -> Hit | None:
        """An answer by a model that may still serve the call, fresh enough for the route unless `any_age`.

        Without one, that of an identical call which is being answered, waited for as long as a first token may take.
        """
        led = self._led.get(asked.key)  # it may have ended, and been kept, before a slow store has looked in vain
        hit = await self._exact_hit(asked, plan, any_age) or await self._semantic_hit(asked, plan, any_age)
        if hit is None and not any_age and (led := led or self._led.get(asked.key)) is not None:
            hit = await self._led_hit(led, plan)
        for observer in self._observers:
            observer(plan.route, hit.kind if hit is not None else "miss")
        return hit

    @contextmanager
    def leading(self, asked: Asked) -> Iterator[None]:
        """Have identical calls wait for this one, which is entered without a pause after it has looked in vain."""
        if asked.key in self._led:
            yield  # it does not want to wait, or has waited long enough
            return
        led = self._led[asked.key] = asyncio.get_running_loop().create_future()
        try:
            yield
        finally:
            del self._led[asked.key]
            if not led.done():
                led.set_result(None)

    async def keep(self, asked: Asked, plan: Plan, answer: Answer) -> None:
        """Keep a whole answer: exact ones at once, others behind the caller's back."""
        if (led := self._led.get(asked.key)) is not None and not led.done():
            led.set_result(answer)
        config = plan.cache
        if config.exact_ttl_s is not None:
            await self._exact.put(asked, answer, self._keep_s(config.exact_ttl_s))
        semantic, ttl_s = self._semantic, config.semantic_ttl_s
        if semantic is not None and ttl_s is not None and asked.question and len(self._keeping) < MAX_PENDING:
            keeping = asyncio.create_task(semantic.put(asked, answer, self._keep_s(ttl_s)))
            self._keeping.add(keeping)
            keeping.add_done_callback(self._keeping.discard)

    async def forget(self, tenant_id: str) -> None:
        """Drop all that is kept of a tenant; an answer that is on its way meanwhile may be. Raises ForgetFailed."""
        await self.settled()
        tenant = tenant_hash(tenant_id)
        await self._exact.forget(tenant)
        if self._semantic is not None:
            await self._semantic.forget(tenant)

    async def settled(self) -> None:
        """Wait until what is to be kept is kept."""
        while self._keeping:
            await asyncio.wait(self._keeping)

    async def close(self) -> None:
        await self.settled()
        if self._semantic is not None:
            self._semantic.close()

    async def _exact_hit(self, asked: Asked, plan: Plan, any_age: bool) -> Hit | None:
        ttl_s = plan.cache.exact_ttl_s
        answer = None if ttl_s is None else await self._exact.get(asked)
        if answer is None or ttl_s is None:
            return None
        return self._hit(answer, "exact", plan, None if any_age else ttl_s)

    async def _led_hit(self, led: "asyncio.Future[Answer | None]", plan: Plan) -> Hit | None:
        await asyncio.wait((led,), timeout=plan.config.first_token_timeout_s or plan.config.timeout_s)
        answer = led.result() if led.done() else None
        return None if answer is None else self._hit(answer, "exact", plan, None)

    async def _semantic_hit(self, asked: Asked, plan: Plan, any_age: bool) -> Hit | None:
        ttl_s = plan.cache.semantic_ttl_s
        if self._semantic is None or ttl_s is None or not asked.question:
            return None
        near = await self._semantic.near(
            asked,
            threshold=plan.cache.semantic_threshold,
            models={target.name for target in plan.targets},
            since=None if any_age else self.now() - ttl_s,
        )
        if near is None:
            return None
        return self._hit(near.answer, "semantic", plan, None if any_age else ttl_s, near.cosine)

    def _hit(
        self, answer: Answer, kind: Kind, plan: Plan, ttl_s: float | None, cosine: float | None = None
    ) -> Hit | None:
        target = next((target for target in plan.targets if target.name == answer.model), None)
        age_s = self.now() - answer.made_at
        if target is None or age_s < -SKEW_S or (ttl_s is not None and age_s >= ttl_s):
            return None
        return Hit(answer, kind, target, max(0.0, age_s), cosine)

    def _keep_s(self, ttl_s: float) -> float:
        return max(ttl_s, AGED_S) if self._aged else ttl_s
