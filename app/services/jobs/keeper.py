"""Sees to it that every open job is in the hands of the engine, and the engine's attempts in those of a living worker.

Each process that performs jobs has a keeper, and any of them may do any of this at the same time: jobs that were only
written down are handed over, lost attempts are made again, dead workers' attempts are brought to others.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from app.services.jobs.executors import BEAT_S, Executors
from app.services.jobs.ports import JobEngine, JobFailure
from app.services.jobs.shelf import Shelf
from app.services.jobs.worker import Worker

log = logging.getLogger("pilothouse.jobs")

LOOK_AGAIN_S: Final = 60.0  # how long the engine is believed to have what it was handed
LOST_PAUSE_S: Final = 2.0
STUMBLED_S: Final = 5.0
POISONOUS = JobFailure("internal", "job_given_up", "The job's workers died of it, one after the other.")


class Keeper:
    """Made by who opens the engine; `keep` is its task."""

    def __init__(
        self,
        shelf: Shelf,
        engine: JobEngine,
        executors: Executors,
        worker: Worker,
        *,
        poll_s: float,
        retention_s: float,
        retention_of_tenants_s: Mapping[str, float] | None = None,
        beat_s: float = BEAT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shelf, self._engine, self._executors, self._worker = shelf, engine, executors, worker
        self._poll_s, self._beat_s, self._monotonic = poll_s, beat_s, monotonic
        self._retention_s, self._retention_of_tenants_s = retention_s, retention_of_tenants_s or {}
        self._nudged = asyncio.Event()
        self._beat_at = 0.0

    def nudge(self) -> None:
        """There is something new: look now. To be called on the keeper's loop."""
        self._nudged.set()

    async def keep(self) -> None:
        """For ever."""
        while True:
            self._nudged.clear()
            try:
                await self.turn()
            except Exception as error:
                # The loop of a worker: a store that is away for a minute must not end it.
                log.warning("the jobs could not be looked after", exc_info=error)
                await asyncio.sleep(STUMBLED_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._nudged.wait()

    async def turn(self) -> None:
        """All that is due now."""
        now = self._monotonic()
        if now >= self._beat_at:
            self._beat_at = now + self._beat_s
            await self._executors.beat()
            await self._bring_back()
        await self._worker.call_off()
        while await self._hand_over():
            pass

    async def sweep(self) -> int:
        """Forget the jobs that ended long ago; how many that were."""
        gone = 0
        while old := await self._shelf.old(self._retention_s, self._retention_of_tenants_s):
            await self._engine.forget(old)
            forgotten = {ticket.job_id for ticket in old}
            await self._shelf.forget(forgotten)
            gone += len(forgotten)
        return gone

    async def _hand_over(self) -> int:
        """Give the engine what it does not have, and learn what became of what it had; how many jobs that were."""
        due = await self._shelf.due()
        tickets = [ticket for ticket, _ in due]
        carried = await self._engine.look(tickets)
        await self._engine.carry([ticket for ticket, carriage in zip(tickets, carried, strict=True) if not carriage])
        for (ticket, fence), carriage in zip(due, carried, strict=True):
            if carriage == "ended":
                await self._shelf.lost(ticket, fence, LOST_PAUSE_S)
            elif carriage == "given_up":
                await self._shelf.give_up(ticket, fence, POISONOUS)
        with_it = [ticket for ticket, carriage in zip(tickets, carried, strict=True) if carriage in (None, "carried")]
        await self._shelf.looked_after(with_it, LOOK_AGAIN_S)
        return len(due)

    async def _bring_back(self) -> None:
        """Take what dead workers hold. By the executor's name, so that who comes second finds nothing."""
        for executor_id in await self._engine.holders() - await self._executors.living():
            if found := await self._engine.recover(executor_id):
                log.warning("a worker died with jobs in its hands", extra={"executor_id": executor_id, "jobs": found})
        if lost := await self._engine.let_go():
            log.warning("the ends of attempts could not be written down", extra={"jobs": lost})
