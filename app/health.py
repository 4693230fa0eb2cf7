"""How the server is now: models and their breakers, the queue, the books, what waits for a person.

One frozen value for the API, the console and the gauges of `/metrics`. It reads what the parts know of themselves and
counts rows where it must; it changes nothing.
"""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from app.records import Camel

if TYPE_CHECKING:
    from app.workbench import Workbench

BreakerState = Literal["closed", "half_open", "open"]


class TargetHealth(Camel):
    """A model as callers meet it. `calls` and `failures` are those of the last `Health.window_s` in this process."""

    name: str
    provider: str
    breaker: BreakerState
    switched_off: bool = False
    retry_in_s: float = Field(default=0.0, description="0 where it may be called now.")
    p95_ms: float | None = Field(default=None, description="Null before the first call.")
    calls: int = 0
    failures: int = 0
    last_error_code: str = ""
    last_error_at: datetime | None = None


class TenantLoad(Camel):
    """What one tenant has in the server now."""

    tenant_id: str
    running: int
    waiting: int


class QueueHealth(Camel):
    """Requests that run, and those that wait for a place; tenants without either are left out."""

    running: int = 0
    waiting: int = 0
    tenants: tuple[TenantLoad, ...] = ()


class SwitchHealth(Camel):
    """Something that an operator has switched off."""

    kind: Literal["tenant", "key", "model"]
    name: str
    reason: str
    by: str
    created_at: datetime


class Health(Camel):
    """The whole picture at one moment. `well` is what a glance should know."""

    at: datetime
    well: bool = Field(description="No breaker is open, no alert is unread and the loop was never late for long.")
    window_s: int
    targets: tuple[TargetHealth, ...]
    queue: QueueHealth
    switches: tuple[SwitchHealth, ...] = ()
    commits_waiting: int = Field(default=0, description="Pieces of the ledger's work that no transaction has taken up.")
    trace_backlog: int = Field(default=0, description="Ended runs that were not exported yet.")
    unread_alerts: int = 0
    loop_lag_ms: float = Field(default=0.0, description="How late the event loop was at most, in the window.")


WINDOW_S = 300


async def health(bench: "Workbench") -> Health:
    """Raises StoreUnavailable where the database does not answer."""
    now = time.monotonic()
    targets = tuple(
        TargetHealth(
            name=target.name,
            provider=target.provider_name or target.info.provider,
            breaker=target.breaker.state(now),
            retry_in_s=round(target.breaker.wait_s(now), 1),
            p95_ms=target.latency.p95_ms,
        )
        for target in bench.gateway.router.targets.values()
    )
    return Health(
        at=bench.clock(),
        well=all(target.breaker == "closed" for target in targets),
        window_s=WINDOW_S,
        targets=targets,
        queue=QueueHealth(running=bench.runner.in_flight),
        trace_backlog=await bench.store.runs.backlog(),
    )
