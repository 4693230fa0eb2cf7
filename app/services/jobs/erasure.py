"""Takes a person's jobs away, inputs and results and all, whatever their state."""

from sqlalchemy import delete, select

from app.services.database import Database
from app.services.jobs.tables import job_items, jobs


async def erase_jobs(database: Database, tenant_id: str, user_id: str) -> int:
    """How many that were. A worker that is at one of them finds that it is not its any more."""
    mine = (jobs.c.tenant_id == tenant_id) & (jobs.c.user_id == user_id)
    async with database.write() as connection:
        own = select(jobs.c.job_id).where(mine)
        await connection.execute(delete(job_items).where(job_items.c.job_id.in_(own)))
        return (await connection.execute(delete(jobs).where(mine))).rowcount
