"""The webhook that tells a job's end: a job itself, written down with that end in one transaction.

So a process that dies between the two leaves both or neither, and the delivery is tried again as any job is. Its id
follows from the job's: there is one delivery of each end, whoever writes it down, and its `webhook-id` never changes.
"""

from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.records import Principal
from app.services.database import Database, from_us, to_us
from app.services.jobs.ports import CallbackStatus, JobRequest, JobStatus
from app.services.jobs.rows import job_row, owner
from app.services.jobs.tables import jobs

WEBHOOK: Final = "webhook"  # the kind that delivers
PRIORITY: Final = 1  # before whatever else of its tenant waits
_TOLD: Final[Mapping[JobStatus, CallbackStatus]] = {
    "queued": "waiting",
    "running": "waiting",
    "succeeded": "delivered",
    "failed": "failed",
    "cancelled": "failed",
}


def delivery_id(job_id: str) -> str:
    """The id of the job that delivers this one's end."""
    return sha256(f"end of {job_id}".encode()).hexdigest()[: len(job_id)]


async def note_end(database: Database, connection: AsyncConnection, job_id: str) -> None:
    """To be called in the transaction that ended the job."""
    row = (await connection.execute(select(jobs).where(jobs.c.job_id == job_id))).one()
    if row.callback_url is None:
        return
    held = database.seals.open(jobs, row._asdict())
    event = {"url": held["callback_url"], **_event(row, held["error"])}
    await deliver(database, connection, delivery_id(job_id), owner(row), event)


async def deliver(
    database: Database, connection: AsyncConnection, delivery: str, who: Principal, event: Mapping[str, Any]
) -> None:
    """Have an event delivered once under that id, on behalf of somebody: in the transaction that it is told of in."""
    asked = JobRequest(who, WEBHOOK, event, priority=PRIORITY)
    row = database.seals.seal(jobs, job_row(asked, delivery, to_us(database.clock())))
    await connection.execute(database.insert(jobs).values(dict(row)).on_conflict_do_nothing())


async def callbacks(connection: AsyncConnection, rows: Collection[Row[Any]]) -> Mapping[str, CallbackStatus]:
    """By the ids of those jobs that have a callback: how far it is."""
    wanted = {delivery_id(row.job_id): row.job_id for row in rows if row.callback_url is not None}
    if not wanted:
        return {}
    query = select(jobs.c.job_id, jobs.c.status).where(jobs.c.job_id.in_(wanted))
    found = {wanted[row.job_id]: _TOLD[row.status] for row in await connection.execute(query)}
    return {job_id: found.get(job_id, "waiting") for job_id in wanted.values()}


def _event(row: Row[Any], error: Mapping[str, str] | None) -> dict[str, Any]:
    """What is told: that it has ended and how. Who wants its result asks for it with a key."""
    return {
        "jobId": row.job_id,
        "type": f"job.{row.status}",
        "timestamp": from_us(row.ended_us).isoformat(),
        "data": {
            "jobId": row.job_id,
            "kind": row.kind,
            "status": row.status,
            "done": row.done,
            "total": row.total,
            "error": error,
        },
    }
