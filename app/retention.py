"""Forgets what was kept long enough, by the file's `retention:`, a tenant and some rows at a time.

Checkpoints and traces go first and the rows last: until then the next round finds what is due, so whoever was killed in
between begins again there. The ledger and the audit trail are never touched.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from app.checkpoints import Checkpoints, drop_threads
from app.config.retention import RetentionConfig
from app.names import SHARED_TENANT
from app.services.audit import PLATFORM
from app.services.store.expiry import Alone, Expiries, Whole
from app.services.store.store import Store
from app.traces import Traces
from app.withdrawal import Withdrawal

_WHOLE: Final[tuple[Whole, ...]] = ("conversations", "runs")
_ALONE: Final[tuple[Alone, ...]] = ("feedback", "escalations", "approvals", "tickets")

Told = Callable[[int], Awaitable[None]]
"""How many rows are gone so far; what it raises ends the round."""


class Retention:
    """Of one installation. One round at a time is its caller's matter; two would do each other's work."""

    def __init__(
        self,
        store: Store,
        checkpoints: Checkpoints,
        traces: Traces,
        withdrawal: Withdrawal,
        config: RetentionConfig,
    ) -> None:
        self._store, self._checkpoints, self._traces, self._config = store, checkpoints, traces, config
        self._withdrawal = withdrawal
        self._rows = Expiries(store.database)

    async def sweep(self, told: Told) -> Mapping[str, int]:
        """What went, by where it was. Raises TracesNotErased, StoreUnavailable; then call it again."""
        gone = Counter[str]()
        if count := await self._store.repeats.sweep():
            gone["repeats"] = count
        if not self._config.forgets:
            return gone
        for tenant_id in await self._rows.tenants():
            await self._sweep_tenant(tenant_id, gone, told)
        if gone.total():
            await self._store.database.scrub()
            await self._checkpoints.scrub()
        return gone

    async def _sweep_tenant(self, tenant_id: str, gone: Counter[str], told: Told) -> None:
        now, ages = self._store.database.clock(), self._config.of(tenant_id).ages
        for kind in _WHOLE:
            if (age := ages.get(kind)) is None:
                continue
            while (due := await self._rows.due(kind, tenant_id, now - age)).ids:
                gone["checkpoints"] += await drop_threads(self._checkpoints, tenant_id, due.run_ids)
                gone["traces"] += await self._traces.remove(due.run_ids)
                gone.update(await self._rows.drop(due, now - age))
                await told(gone.total())
        if (age := ages.get("documents")) is not None and tenant_id != SHARED_TENANT:
            uploads = await self._withdrawal.written_before(tenant_id, now - age)
            gone.update(await self._withdrawal.take(uploads, PLATFORM))
            await told(gone.total())
        for alone in _ALONE:
            if (age := ages.get(alone)) is None:
                continue
            while count := await self._rows.drop_alone(alone, tenant_id, now - age):
                gone[alone] += count
                await told(gone.total())
