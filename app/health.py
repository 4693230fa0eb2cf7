"""How the server is now: models and their breakers, the queue, the books, what waits for a person.

One frozen value for the API, the console and the gauges of `/metrics`. It reads what the parts know of themselves and
counts rows where it must; it changes nothing.
"""

import asyncio
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal

from pydantic import Field

from app.names import SHARED_TENANT
from app.records import Camel, Principal
from app.telemetry.late import LATE_S
from app.telemetry.recent import WINDOW_S
from graphs.errors import UpstreamError

if TYPE_CHECKING:
    from app.workbench import Workbench

STORE_S: Final = 2.0  # a store that takes longer to count rows does not answer

BreakerState = Literal["closed", "half_open", "open"]


class TargetHealth(Camel):
    """A model as callers meet it. `calls` and `failures` are those of the last `Health.window_s` in this process."""

    name: str
    provider: str
    breaker: BreakerState
    switched_off: bool = False
    retry_in_s: float = Field(default=0.0, description="0 where it may be called now.")
    p95_ms: float | None = Field(default=None, description="Null before the first call.")
    first_token_ms: float | None = Field(default=None, description="Mean in the window; null where none was streamed.")
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


class DamagedCollection(Camel):
    """`index`: searched without its index until that is built anew. `rows`: closed until its files are restored."""

    tenant_id: str
    collection: str
    part: Literal["index", "rows"]
    found_at: datetime


class Health(Camel):
    """The whole picture at one moment. `well` is what a glance should know."""

    at: datetime
    well: bool = Field(
        description="The store answers, no breaker is open, no alert is unread, no index is damaged, the loop in time."
    )
    window_s: int
    targets: tuple[TargetHealth, ...]
    queue: QueueHealth
    switches: tuple[SwitchHealth, ...] = ()
    commits_waiting: int = Field(default=0, description="Pieces of the ledger's work that no transaction has taken up.")
    trace_backlog: int | None = Field(
        default=None, description="Ended runs that were not exported yet; null while the store does not answer."
    )
    unread_alerts: int | None = Field(default=None, description="Null while the store does not answer.")
    damages: tuple[DamagedCollection, ...] = Field(default=(), description="As this process has met them.")
    loop_lag_ms: float = Field(default=0.0, description="How late the event loop was at most, in the window.")


async def health(bench: "Workbench") -> Health:
    """A look around. It never fails: a store that does not answer is part of the picture."""
    backlog, unread = await _counted(bench)
    targets = _targets(bench)
    loop_lag_ms = bench.watch.loop.worst_ms
    return Health(
        at=bench.clock(),
        well=unread == 0
        and loop_lag_ms < LATE_S * 1e3
        and not bench.library.damages
        and all(target.breaker == "closed" for target in targets),
        window_s=WINDOW_S,
        targets=targets,
        queue=_queue(bench),
        switches=tuple(
            SwitchHealth(kind=off.kind, name=off.name, reason=off.reason, by=off.by, created_at=off.created_at)
            for off in bench.watch.switches.seen
        ),
        commits_waiting=bench.desk.commits_waiting,
        trace_backlog=backlog,
        unread_alerts=unread,
        damages=tuple(
            DamagedCollection(
                tenant_id=found.place.tenant_id, collection=str(found.place), part=found.part, found_at=found.found_at
            )
            for found in bench.library.damages
        ),
        loop_lag_ms=loop_lag_ms,
    )


def seen_by(who: Principal, found: Health, allowed: frozenset[str] | None) -> Health:
    """The part of the picture that is the caller's business: for the owner all of it. `allowed` are its models."""
    if who.is_owner:
        return found
    own = tuple(load for load in found.queue.tenants if load.tenant_id == who.tenant_id)
    queue = QueueHealth(
        running=sum(load.running for load in own), waiting=sum(load.waiting for load in own), tenants=own
    )
    targets = tuple(target for target in found.targets if allowed is None or target.name in allowed)
    damages = tuple(each for each in found.damages if each.tenant_id in (who.tenant_id, SHARED_TENANT))
    return found.model_copy(update={"targets": targets, "queue": queue, "switches": (), "damages": damages})


async def _counted(bench: "Workbench") -> tuple[int | None, int | None]:
    """Trace backlog and unread alerts."""
    try:
        async with asyncio.timeout(STORE_S):
            return await bench.store.runs.backlog(), await bench.watch.alerts.unread()
    except (UpstreamError, TimeoutError):
        return None, None


def _targets(bench: "Workbench") -> tuple[TargetHealth, ...]:
    now, off = time.monotonic(), bench.watch.switches.models_off
    found = []
    for target in bench.gateway.router.targets.values():
        vitals = bench.watch.recent.of(target.name)
        found.append(
            TargetHealth(
                name=target.name,
                provider=target.provider_name or target.info.provider,
                breaker=target.breaker.state(now),
                switched_off=target.name in off,
                retry_in_s=round(target.breaker.wait_s(now), 1),
                p95_ms=target.latency.p95_ms,
                first_token_ms=vitals.first_token_ms,
                calls=vitals.calls,
                failures=vitals.failures,
                last_error_code=vitals.last_error_code,
                last_error_at=vitals.last_error_at,
            )
        )
    return tuple(found)


def _queue(bench: "Workbench") -> QueueHealth:
    places = bench.desk.places
    tenants = (
        TenantLoad(tenant_id=tenant, running=running, waiting=waiting)
        for tenant, (running, waiting) in places.by_tenant().items()
    )
    return QueueHealth(running=places.running, waiting=places.waiting, tenants=tuple(tenants))
