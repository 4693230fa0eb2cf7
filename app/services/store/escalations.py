"""Runs handed to a person, and why."""

from sqlalchemy import insert, select

from app.ids import new_id
from app.services.store.database import Database
from app.services.store.page import build, columns, page
from app.services.store.records import EscalationRecord, Page
from app.services.store.tables import escalations, runs
from graphs.errors import Missing

_COLUMNS = columns(escalations, EscalationRecord)


class Escalations:
    """A tenant's escalations."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def create(self, run_id: str, tenant_id: str, reason: str, detail: str = "") -> EscalationRecord:
        """Raises Missing if the tenant has no such run."""
        row = {
            "escalation_id": new_id(),
            "run_id": run_id,
            "tenant_id": tenant_id,
            "reason": reason,
            "detail": detail,
            "created_at": self._db.clock(),
        }
        async with self._db.write() as connection:
            run = select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.tenant_id == tenant_id)
            if (await connection.execute(run)).first() is None:
                raise Missing("no such run")
            written = await connection.execute(insert(escalations).values(row).returning(*_COLUMNS))
            return build(EscalationRecord, written.one())

    async def list(self, tenant_id: str, limit: int = 50, cursor: str | None = None) -> Page[EscalationRecord]:
        """Newest first. Raises Invalid for limit or cursor."""
        query = select(*_COLUMNS).where(escalations.c.tenant_id == tenant_id)
        position = (escalations.c.created_at, escalations.c.escalation_id)
        async with self._db.read() as connection:
            return await page(connection, query, EscalationRecord, position, limit, cursor)
