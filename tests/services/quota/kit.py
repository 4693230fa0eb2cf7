"""What the tests of the ledger share: payers, charges, bills, a clock that is set, ledgers on one database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.pool import NullPool

from app.records import Bill, Charge, Payer
from app.services.quota.book import Scope
from app.services.quota.committer import Committer
from app.services.quota.ledger import Budget, Ledger
from graphs.types import Usage

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ANN = Payer("acme", "ann", "k1", "search", "q1", "r1")


def charge(wanted: int, least: int | None = None, *, payer: Payer = ANN, **given: Any) -> Charge:
    at_least = wanted if least is None else least
    values = {
        "model": "big",
        "provider": "lab",
        "route": "default",
        "task": "chat",
        "attempt": 1,
        "streamed": False,
        "price_source": "config",
        "prompt_tokens": 7,
        "prompt_micros": min(7, at_least),
    } | given
    return Charge(payer=payer, wanted_micros=wanted, least_micros=at_least, **values)


def bill(cost: int, **given: Any) -> Bill:
    values: dict[str, Any] = {"outcome": "ok", "usage": Usage(10, 5), "latency_ms": 1.0, "model_version": "v1"} | given
    return Bill(cost_micros=cost, **values)


def tenants(limit: int, tenant_id: str = "acme") -> tuple[Budget, ...]:
    return (Budget(Scope("tenant", tenant_id), limit),)


@dataclass
class Clock:
    """Wall time and monotonic time, moved by hand."""

    at: datetime = NOON
    since_s: float = 1_000.0

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.since_s

    def pass_by(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)
        self.since_s += seconds


@dataclass
class Books:
    """Ledgers that share a database, each as a process of its own has it, and a look at the tables behind them."""

    url: str
    clock: Clock = field(default_factory=Clock)
    ledgers: list[Ledger] = field(default_factory=list)

    def open(self, **given: Any) -> Ledger:
        ledger = Ledger(
            Committer(self.url), now=self.clock.now, monotonic=self.clock.monotonic, **({"wait_s": 0.0} | given)
        )
        self.ledgers.append(ledger)
        return ledger

    def rows(self, statement: str, **values: Any) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return connection.execute(text(statement), values).all()

    @cached_property
    def _engine(self) -> Engine:
        return create_engine(sync_url(self.url), poolclass=NullPool)

    def one(self, statement: str, **values: Any) -> Any:
        (row,) = self.rows(statement, **values)
        return row[0] if len(row) == 1 else tuple(row)


def sync_url(url: str) -> str:
    return url.replace("sqlite+aiosqlite", "sqlite")


def migrated(url: str) -> str:
    from app.services.store.migrate import migrate  # not for the child processes, which would pay for Alembic

    migrate(make_url(url), 10.0)
    return url


@asynccontextmanager
async def books(url: str, *, clock: Clock | None = None) -> AsyncIterator[Books]:
    made = Books(await asyncio.to_thread(migrated, url), clock or Clock())
    try:
        yield made
    finally:
        for ledger in made.ledgers:
            await ledger.close()


async def spend(ledger: Ledger, cost: int, limits: Sequence[Budget] = (), **given: Any) -> str:
    """One whole call; its id."""
    wanted = given.pop("wanted", cost)
    of_bill = {name: given.pop(name) for name in ("outcome", "usage", "error_code", "model_version") if name in given}
    hold = await ledger.reserve(charge(wanted, **given), limits)
    await hold.recorded()
    await hold.settle(bill(cost, **of_bill))
    return hold.call_id


Make = Callable[[], Ledger]
