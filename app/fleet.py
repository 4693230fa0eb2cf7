"""The processes of an installation, as a run meets them: one drives it, the others may read, cancel and inherit it.

What they say to each other goes through the store and works with any of its databases. Only the events of a run in
flight need Redis to be seen elsewhere as they come; without it they follow when the run ends or waits.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing, suppress
from typing import Final, Protocol

from app.ids import new_id
from app.records import RunEvent
from app.services.relay.relay import EventRelay, RelayLost
from app.services.store.records import RunRecord
from app.services.store.store import Store
from graphs.errors import Missing

log = logging.getLogger("pilothouse.fleet")

HEED_S: Final = 1.0  # how often a process looks whether others want its runs cancelled
TAKE_OVER_S: Final = 5.0  # how often it looks for runs whose process has died
CANCEL_WAIT_S: Final = 5.0
POLL_S: Final = 0.2
# In a stream whose events do not come as they happen; numbered 0, so that a reader comes back after the one before it.
DELAYED: Final = "stream.delayed"


class Roll(Protocol):
    """The living. A process that stood still may be taken for dead, and goes on under a new id."""

    @property
    def process_id(self) -> str: ...

    async def living(self) -> Collection[str]: ...


class Alone:
    """The roll where there is one process: whoever else left a run is dead."""

    def __init__(self) -> None:
        self.process_id = new_id()

    async def living(self) -> Collection[str]:
        return {self.process_id}


class Fleet:
    """The view of one process. `bound_s` is how long a run may take at most, `grace_s` how long one goes on unread."""

    def __init__(
        self, store: Store, roll: Roll, relay: EventRelay | None = None, *, bound_s: float, grace_s: float
    ) -> None:
        self._store, self._roll, self.relay = store, roll, relay
        self._bound_s, self._note_s = bound_s, max(grace_s / 3, POLL_S)

    @property
    def process_id(self) -> str:
        return self._roll.process_id

    async def events(self, record: RunRecord, after: int) -> AsyncGenerator[RunEvent, None]:
        """The events above `after` of a run that another process drives, until it ends or waits.

        Where they cannot be had as they come, one DELAYED says so and the stored ones follow.
        """
        last, reading = after, asyncio.create_task(self._note_reading(record.run_id), name="note a reader")
        try:
            try:
                async with aclosing(self._relayed(record.run_id, after)) as relayed:
                    async for event in relayed:
                        last = event.number
                        yield event
            except RelayLost as error:
                log.warning("a run is not followed live", extra={"requestId": record.run_id, "cause": error.message})
                yield RunEvent(0, DELAYED, {"reason": error.message})
            await self._until_stored(record.run_id)
            for event in await self._store.runs.events(record.run_id, record.tenant_id, last):
                yield event
        finally:
            reading.cancel()
            await asyncio.wait({reading})

    async def cancel(self, run_id: str) -> bool:
        """Have whoever drives the run cancel it, and wait a moment for that; False if nobody drives it."""
        if not await self._store.leases.ask_cancel(run_id):
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT_S):
                await self._until_stored(run_id)
        return True

    async def abandoned(self, driving: Collection[str]) -> Sequence[RunRecord]:
        """Runs in flight that nobody drives any more; `driving` are those that this process does."""
        leases = [lease for lease in await self._store.leases.held() if lease.run_id not in driving]
        living: Collection[str] = ()
        if any(lease.process_id != self.process_id for lease in leases):
            # Asked after the leases were read: whoever held one then and lives has signed before.
            living = await self._roll.living()
        found = []
        for lease in leases:
            if lease.process_id in living and lease.process_id != self.process_id:
                continue
            with suppress(Missing):
                record = await self._store.runs.load(lease.run_id)
                if record.process_id == lease.process_id and record.ended_at is None:
                    found.append(record)
        return found

    async def reads(self, run_id: str) -> int:
        """A number that goes up while the run is read at another process."""
        return await self._store.leases.reads(run_id)

    async def _relayed(self, run_id: str, after: int) -> AsyncGenerator[RunEvent, None]:
        if not await self._store.leases.is_held(run_id):
            return
        if self.relay is None:
            raise RelayLost("this run is at another process, and there is no Redis to follow it through")
        async with aclosing(self.relay.follow(run_id, after)) as told:
            async for event in told:
                if event is not None:
                    yield event
                elif not await self._store.leases.is_held(run_id):
                    return

    async def _until_stored(self, run_id: str) -> None:
        until = time.monotonic() + self._bound_s
        # No event to wait for: it happens in another process.
        while time.monotonic() < until and await self._store.leases.is_held(run_id):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)

    async def _note_reading(self, run_id: str) -> None:
        """Let the driver know that somebody reads, well before it would take the run for unread."""
        while True:
            try:
                await self._store.leases.note_read(run_id)
            except Exception:
                # The loop of a worker: a store that is away for a moment must not end it.
                log.exception("a reader could not be noted")
            await asyncio.sleep(self._note_s)
