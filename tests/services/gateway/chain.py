"""Candidates in a row for tests of routing and recovery: scripted models, a given clock, books that keep all lines."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from app.config.price import Price
from app.config.schema import RouteConfig
from app.records import Bill, Charge, Payer
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.ports import OpenDesk
from app.services.gateway.provider import Provider
from app.services.gateway.recover import Attempt, Recovery
from app.services.gateway.retries import RetryBudget
from app.services.gateway.routes import Router, Target
from app.services.gateway.scripted import SCRIPTED, Script, ScriptedProvider
from graphs.errors import QuotaExhausted
from graphs.types import Completion, Delta, Message, ModelInfo, ModelRequest, Task

ASK = ModelRequest(messages=(Message("user", "Say hello"),))
ACME = Payer("acme", "ann", "k1", "tests", "r1")
# 2 USD a million tokens read, 8 USD a million written: a token read costs 2 micro-dollars.
PRICE = Price(2_000_000, 8_000_000, 2_000_000, 2_000_000, "config")


class Clock:
    """Monotonic seconds that pass only when told, or when somebody sleeps by it."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@dataclass
class Line:
    """One reservation and what became of it."""

    charge: Charge
    bill: Bill | None = None
    recorded: bool = False
    settled: int = 0


@dataclass
class Books(OpenDesk):
    """A desk that writes everything down. `grants` is what a budget has left, None where there is none."""

    grants: int | None = None
    models: frozenset[str] | None = None
    lines: list[Line] = field(default_factory=list)

    def allowed(self, payer: Payer) -> frozenset[str] | None:
        return self.models

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> Any:
        if self.grants is not None and charge.least_micros > self.grants:
            raise QuotaExhausted("the month's budget cannot cover this call")
        line = Line(charge)
        self.lines.append(line)
        granted = None if self.grants is None else min(self.grants, charge.wanted_micros)

        class Held:
            granted_micros = granted

            async def recorded(self) -> None:
                line.recorded = True

            async def settle(self, bill: Bill) -> None:
                line.settled += 1
                line.bill = bill

        return Held()

    @property
    def told(self) -> list[tuple[str, str]]:
        """Model and outcome of each attempt, in the order of their reservations."""
        return [(line.charge.model, line.bill.outcome if line.bill else "open") for line in self.lines]

    @property
    def bills(self) -> list[Bill]:
        return [line.bill for line in self.lines if line.bill is not None]


@dataclass
class Chain:
    """A route named "default" over scripted candidates."""

    gateway: ModelGateway
    targets: dict[str, Target]
    books: Books
    clock: Clock
    attempts: list[Attempt] = field(default_factory=list)

    async def ask(self, request: ModelRequest = ASK) -> tuple[list[str], Completion]:
        """The deltas, and the completion."""
        items = [item async for item in self.gateway.stream(request, ACME, self.attempts.append)]
        assert isinstance(items[-1], Completion)
        return [item.text for item in items[:-1] if isinstance(item, Delta)], items[-1]

    def asked(self, name: str) -> int:
        """How often that model was asked."""
        provider = self.targets[name].provider
        assert isinstance(provider, ScriptedProvider)
        return len(provider.requests)

    def state(self, name: str) -> str:
        return self.targets[name].breaker.state(self.clock())


def scripted(name: str, script: Script, **info: Any) -> ScriptedProvider:
    return ScriptedProvider(script, replace(SCRIPTED, name=name, **info))


def chain(
    scripts: Mapping[str, Script | Provider],
    *,
    books: Books | None = None,
    clock: Clock | None = None,
    policy: BreakerPolicy | None = None,
    budget: RetryBudget | None = None,
    uniform: Callable[[float, float], float] = lambda _low, high: high,
    quality: Callable[[str, Task], float | None] = lambda _model, _task: None,
    prices: Mapping[str, Price] | None = None,
    infos: Mapping[str, Mapping[str, Any]] | None = None,
    beside: Mapping[str, Provider] | None = None,
    **config: Any,
) -> Chain:
    """`scripts` by the candidates' names, in their order; `beside` are models that no route names; `config` are keys of
    the route."""
    books, clock = books or Books(), clock or Clock()
    targets: dict[str, Target] = {}
    for name, script in scripts.items():
        ready = isinstance(getattr(script, "info", None), ModelInfo)
        provider: Any = script if ready else scripted(name, script, **(infos or {}).get(name, {}))  # type: ignore[arg-type]
        price = (prices or {}).get(name, PRICE)
        targets[name] = Target(name, provider, price, Breaker(policy or BreakerPolicy(), jitter=lambda: 0.0))
    for name, provider in (beside or {}).items():
        targets[name] = Target(name, provider, PRICE, Breaker(policy or BreakerPolicy()))
    route = RouteConfig(candidates=tuple(scripts), **{"retries": 0, **config})
    router = Router(
        targets,
        {"default": route},
        members=lambda _: tuple(scripts),
        by_task={},
        default="default",
        quality=quality,
        monotonic=clock,
    )
    recovery = Recovery(
        books,
        retries=budget or RetryBudget(1.0, 100),
        monotonic=clock,
        sleep=clock.sleep,  # type: ignore[arg-type]
        uniform=uniform,
    )
    return Chain(ModelGateway(router, recovery), targets, books, clock)
