"""Which process drives which run, and what the other processes have to tell it.

A run in flight carries the id of the process that drives it. Whether that process lives is for others to know; a lease
goes on to another process by compare-and-set, so that of many that would take it one gets it, and what a former holder
still writes is refused (`Runs.finish`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import or_, select, update

from app.services.store.database import Database
from app.services.store.page import build, columns
from app.services.store.tables import runs
from graphs.errors import Missing


@dataclass(frozen=True, slots=True)
class Lease:
    """A run that `process_id` drives; empty for one of a version that did not write down whose it was."""

    run_id: str
    process_id: str


_COLUMNS = columns(runs, Lease)
_IN_FLIGHT = runs.c.ended_at.is_(None) & or_(runs.c.process_id != "", runs.c.status == "running")


class Leases:
    """The runs in flight, of all tenants: for the runner, never for a request."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def take(self, run_id: str, process_id: str, *, after: str = "") -> bool:
        """Drive an open run from now on, if its holder is still `after`; empty: if it waits and nobody drives it."""
        mine = (runs.c.run_id == run_id, runs.c.process_id == after, runs.c.ended_at.is_(None))
        async with self._db.write() as connection:
            change = update(runs).where(*mine).values(process_id=process_id)
            return (await connection.execute(change)).rowcount == 1

    async def held(self) -> Sequence[Lease]:
        """All runs in flight, oldest first."""
        query = select(*_COLUMNS).where(_IN_FLIGHT).order_by(runs.c.created_at)
        async with self._db.read() as connection:
            return [build(Lease, row) for row in await connection.execute(query)]

    async def is_held(self, run_id: str) -> bool:
        """Whether the run is in flight, at whatever process."""
        async with self._db.read() as connection:
            query = select(runs.c.run_id).where(runs.c.run_id == run_id, _IN_FLIGHT)
            return (await connection.execute(query)).first() is not None

    async def ask_cancel(self, run_id: str) -> bool:
        """Have whoever drives the run cancel it; False if nobody does."""
        driven = (runs.c.run_id == run_id, runs.c.process_id != "", runs.c.ended_at.is_(None))
        async with self._db.write() as connection:
            return (await connection.execute(update(runs).where(*driven).values(cancel_asked=True))).rowcount == 1

    async def cancels_asked(self) -> frozenset[str]:
        """The runs in flight that somebody wants cancelled."""
        query = select(runs.c.run_id).where(runs.c.ended_at.is_(None), runs.c.cancel_asked)
        async with self._db.read() as connection:
            return frozenset((await connection.execute(query)).scalars())

    async def note_read(self, run_id: str) -> None:
        """Say that the run is being read at a process that does not drive it."""
        change = update(runs).where(runs.c.run_id == run_id, runs.c.ended_at.is_(None))
        async with self._db.write() as connection:
            await connection.execute(change.values(reads=runs.c.reads + 1))

    async def reads(self, run_id: str) -> int:
        """How often that was said. Raises Missing."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(runs.c.reads).where(runs.c.run_id == run_id))).first()
        if row is None:
            raise Missing("no such run")
        return int(row.reads)
