"""How a job's items stand in numbers."""

from collections.abc import Mapping

from sqlalchemy import func, select

from app.services.database import Database
from app.services.jobs.ports import ItemStatus
from app.services.jobs.tables import job_items


async def item_counts(database: Database, job_id: str) -> Mapping[ItemStatus, int]:
    """By status; those that no item has are left out."""
    query = select(job_items.c.status, func.count().label("number")).where(job_items.c.job_id == job_id)
    async with database.read() as connection:
        rows = (await connection.execute(query.group_by(job_items.c.status))).all()
    return {row.status: row.number for row in rows}
