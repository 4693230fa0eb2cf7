"""Follows a job: what is new of it and of its items, look by look, until it has ended.

Read from the tables, so that any process can tell of a job, whichever performs it. What is settled is read once.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.database import Database
from app.services.jobs.callbacks import callbacks
from app.services.jobs.ports import ENDED, ItemNews, JobState, News
from app.services.jobs.rows import failure_of, job_state
from app.services.jobs.tables import job_items, jobs
from graphs.errors import Missing

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 4.0  # between looks that find nothing new: many may watch a job that waits


async def follow(
    database: Database, job_id: str, after: int = 0, *, first_pause_s: float = FIRST_PAUSE_S
) -> AsyncGenerator[News, None]:
    """Begins with the job as it stands and with all items behind the number `after`; nothing is told twice.

    Raises Missing once the job is forgotten. The caller has looked whose job it is.
    """
    told, before, pause_s = _Told(database, job_id, after), None, first_pause_s
    while True:
        async with database.read() as connection:
            state = await _state(database, connection, job_id)  # before its items: of an ended job all of them are told
            items = await told.fresh(connection)
        if items or state != before:
            yield News(state, items, told.through)
            before, pause_s = state, first_pause_s
        if state.status in ENDED:
            return
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


class _Told:
    """Which items were told as settled: those up to `through`, and from there to `_last` those that are not `_left`."""

    def __init__(self, database: Database, job_id: str, after: int) -> None:
        self.through = self._last = after
        self._seals, self._job_id = database.seals, job_id
        self._left: set[int] = set()
        self._begun: dict[int, ItemNews] = {}

    async def fresh(self, connection: AsyncConnection) -> list[ItemNews]:
        """In order of their numbers."""
        ahead = or_(job_items.c.number > self._last, job_items.c.number.in_(self._left))
        settled = await self._read(connection, and_(ahead, job_items.c.status.in_(("succeeded", "failed"))))
        begun = {item.number: item for item in await self._read(connection, job_items.c.status == "begun")}
        further = [item for number, item in begun.items() if self._begun.get(number) != item]
        self._begun = begun
        self._note([item.number for item in settled])
        return sorted((*settled, *further), key=lambda item: item.number)

    async def _read(self, connection: AsyncConnection, which: ColumnElement[bool]) -> list[ItemNews]:
        seen = job_items.c
        wanted = select(*(column for column in seen if column.name not in ("input", "content")))
        query = wanted.where(seen.job_id == self._job_id, which).order_by(seen.number)
        return [self._news(row._asdict()) for row in await connection.execute(query)]

    def _news(self, row: Mapping[str, Any]) -> ItemNews:
        held = self._seals.open(job_items, row)
        return ItemNews(
            row["number"],
            row["name"],
            row["status"],
            row["ref"],
            held["result"],
            failure_of(held["error"]),
            tuple(row["allow_groups"] or ()),
        )

    def _note(self, settled: Sequence[int]) -> None:
        if settled and settled[-1] > self._last:
            self._left.update(range(self._last + 1, settled[-1]))
            self._last = settled[-1]
        self._left.difference_update(settled)
        self.through = min(self._left) - 1 if self._left else self._last


async def _state(database: Database, connection: AsyncConnection, job_id: str) -> JobState:
    row = (await connection.execute(select(jobs).where(jobs.c.job_id == job_id))).one_or_none()
    if row is None:
        raise Missing("the job is not kept any more")
    return job_state(database.seals, row, (await callbacks(connection, [row])).get(job_id))
