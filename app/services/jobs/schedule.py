"""Jobs that come again: each process that performs jobs asks for them, and the period's key makes one of it.

So there is no leader who could die, and nothing to elect: whoever is first in a period has the job written down, the
others find it there. The number of a period comes from each process's own clock; one that is ahead begins it early.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from app.names import SHARED_TENANT
from app.records import Principal
from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import JobRequest

log = logging.getLogger("pilothouse.jobs")

SYSTEM: Final = Principal(SHARED_TENANT, "system", frozenset({"owner"}))
STUMBLED_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Recurring:
    """A kind of job without a payload, and how often it comes."""

    kind: str
    every_s: float


class Schedule:
    """The jobs that come again, as this process asks for them. One that waits or runs puts the next ones off."""

    def __init__(self, desk: JobDesk, recurring: Sequence[Recurring], clock: Callable[[], datetime]) -> None:
        self._desk, self._recurring, self._clock = desk, recurring, clock

    async def keep(self) -> None:
        """For ever."""
        keeping = [asyncio.create_task(self._keep(each), name=f"schedule {each.kind}") for each in self._recurring]
        try:
            await asyncio.gather(*keeping)
        finally:
            for task in keeping:
                task.cancel()

    async def ask(self, recurring: Recurring) -> bool:
        """Ask for this period's job; False where an earlier one is not done yet."""
        period = int(self._clock().timestamp() // recurring.every_s)
        key = f"{recurring.kind} {recurring.every_s:g} {period}"
        for status in ("queued", "running"):
            found, _ = await self._desk.page(
                SYSTEM.tenant_id, SYSTEM.user_id, 1, None, kind=recurring.kind, status=status
            )
            if found:
                return False
        await self._desk.submit(JobRequest(SYSTEM, recurring.kind, idempotency_key=key))
        return True

    async def _keep(self, recurring: Recurring) -> None:
        while True:
            await asyncio.sleep(recurring.every_s - self._clock().timestamp() % recurring.every_s)
            try:
                await self.ask(recurring)
            except Exception:
                # The loop of a worker: a store that is away for a moment must not end it.
                log.exception("a job that comes again could not be asked for", extra={"kind": recurring.kind})
                await asyncio.sleep(STUMBLED_S)
