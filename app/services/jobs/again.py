"""Asks again for what a job did not bring about: a new job, of the same kind and payload, with the items that are left.

The rows are copied within the database, since contents may be large. The new job has the rights of who asks now.
"""

from collections.abc import Collection

from sqlalchemy import and_, func, insert, literal, null, select

from app.ids import new_id
from app.records import Principal
from app.services.database import Database, to_us
from app.services.jobs.ports import JobRequest, JobState
from app.services.jobs.rows import job_row
from app.services.jobs.tables import job_items, jobs
from graphs.errors import Conflict


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
    job_id = new_id()
    row = job_row(JobRequest(who, ended.kind, ended.payload, priority=ended.priority), job_id, to_us(database.clock()))
    copied = ("job_id", "number", "name", "status", "input", "content", "ref", "result", "error")
    items = select(
        literal(job_id),
        func.row_number().over(order_by=job_items.c.number),
        job_items.c.name,
        literal("waiting"),
        job_items.c.input,
        job_items.c.content,
        null(),
        null(),
        null(),
    ).where(left)
    async with database.write() as connection:
        total = await connection.scalar(select(func.count()).where(left)) or 0
        if not total and (numbers is not None or ended.status == "succeeded"):
            raise Conflict("nothing of this job is left to do")
        await connection.execute(insert(jobs).values(row | {"total": total}))
        await connection.execute(insert(job_items).from_select(copied, items))
    return job_id
