"""Asks again for what a job did not bring about: a new job, of the same kind and payload, with the items that are left.

Contents may be large and are sealed for the job that they lie with, so they are read and sealed anew some at a time.
The new job has the rights of who asks now.
"""

import asyncio
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Row, and_, func, insert, select, update

from app.ids import new_id
from app.records import Principal
from app.services.database import Database, to_us
from app.services.jobs.ports import JobRequest, JobState
from app.services.jobs.rows import job_row
from app.services.jobs.tables import job_items, jobs
from app.services.seals import Seals
from graphs.errors import Conflict

AT_ONCE: Final = 200
BYTES_AT_ONCE: Final = 4 * 1024 * 1024  # a larger content is read alone


async def submit_again(
    database: Database, who: Principal, ended: JobState, numbers: Collection[int] | None = None
) -> str:
    """The id of the new job; of all items that did not succeed, or of those numbered so.

    Raises Conflict where there is nothing to ask for again: an open job, one called off, whose contents are not kept,
    and one of which everything succeeded.
    """
    if ended.status not in ("failed", "succeeded"):
        raise Conflict(f"a job that is {ended.status} cannot be asked for again")
    left = and_(job_items.c.job_id == ended.job_id, job_items.c.status != "succeeded")
    if numbers is not None:
        left = and_(left, job_items.c.number.in_(numbers))
    job_id, total = new_id(), 0
    row = job_row(JobRequest(who, ended.kind, ended.payload, priority=ended.priority), job_id, to_us(database.clock()))
    sizes = select(job_items.c.number, func.length(job_items.c.content).label("size_bytes")).where(left)
    async with database.write() as connection:
        await connection.execute(insert(jobs).values(dict(database.seals.seal(jobs, row))))
        for part in _in_parts((await connection.execute(sizes.order_by(job_items.c.number))).all()):
            some = select(job_items).where(job_items.c.job_id == ended.job_id, job_items.c.number.in_(part))
            found = (await connection.execute(some.order_by(job_items.c.number))).all()
            anew = await asyncio.to_thread(_copies, database.seals, found, job_id, who.tenant_id, total)
            await connection.execute(insert(job_items), anew)
            total += len(anew)
        if not total and (numbers is not None or ended.status == "succeeded"):
            raise Conflict("nothing of this job is left to do")
        await connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(total=total))
    return job_id


def _copies(seals: Seals, rows: Sequence[Row[Any]], job_id: str, tenant_id: str, before: int) -> list[dict[str, Any]]:
    """As they were when they were asked for, numbered from `before` on."""
    fresh = {"job_id": job_id, "tenant_id": tenant_id, "status": "waiting", "ref": None, "result": None, "error": None}
    return [
        dict(seals.seal(job_items, {**seals.open(job_items, row._asdict()), **fresh, "number": number}))
        for number, row in enumerate(rows, before + 1)
    ]


def _in_parts(sizes: Iterable[Row[int, int | None]]) -> Iterator[list[int]]:
    """The numbers of items that are read together."""
    part: list[int] = []
    held_bytes = 0
    for row in sizes:
        size_bytes = row.size_bytes or 0
        if part and (len(part) == AT_ONCE or held_bytes + size_bytes > BYTES_AT_ONCE):
            yield part
            part, held_bytes = [], 0
        part.append(row.number)
        held_bytes += size_bytes
    if part:
        yield part
