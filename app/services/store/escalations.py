"""Runs handed to people: why, who has taken each, and who closed it. One person takes it, in the database."""

from collections.abc import Mapping
from typing import Any, Final, Literal

from sqlalchemy import ColumnElement, insert, select, update

from app.ids import new_id
from app.records import Actor, EscalationState
from app.services.audit import PLATFORM, Journal, audited
from app.services.store.database import Database
from app.services.store.notices import note
from app.services.store.page import build, columns, page
from app.services.store.records import EscalationRecord, Page
from app.services.store.tables import escalations, runs
from app.services.store.text import clean
from graphs.errors import Conflict, Missing

Step = Literal["take", "close"]
_TOLD: Final[Mapping[EscalationState, Literal["escalation.opened", "escalation.taken", "escalation.closed"]]] = {
    "open": "escalation.opened",
    "taken": "escalation.taken",
    "closed": "escalation.closed",
}
_COLUMNS = columns(escalations, EscalationRecord)


class Escalations:
    """A tenant's escalations."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._record = database.seals.reader(escalations, EscalationRecord)

    async def create(self, run_id: str, tenant_id: str, reason: str, detail: str = "") -> EscalationRecord:
        """The same words on a run again give the escalation that there is, unless it is closed.

        Raises Missing if the tenant has no such run.
        """
        async with audited(self._db) as journal:
            run = select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.tenant_id == tenant_id)
            if (await journal.connection.execute(run)).first() is None:
                raise Missing("no such run")
            return await raise_for(self._db, journal, run_id, tenant_id, reason, detail)

    async def get(self, escalation_id: str, tenant_id: str) -> EscalationRecord:
        """Raises Missing."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(_the(escalation_id, tenant_id)))).first()
        if row is None:
            raise Missing("no such escalation")
        return build(self._record, row)

    async def move(
        self, escalation_id: str, tenant_id: str, by: Actor, step: Step, comment: str = ""
    ) -> EscalationRecord:
        """Take an open one, or close one that is not closed yet. Raises Conflict where somebody was first, Missing."""
        now = self._db.clock()
        values: dict[str, Any] = {"state": "taken", "taken_by": by.user_id, "taken_at": now}
        if step == "close":
            values = {"state": "closed", "closed_by": by.user_id, "closed_at": now, "comment": comment}
        allowed: tuple[EscalationState, ...] = ("open",) if step == "take" else ("open", "taken")
        at = await self.get(escalation_id, tenant_id)
        sealed = self._db.seals.seal(
            escalations, values, tenant_id=tenant_id, run_id=at.run_id, escalation_id=escalation_id
        )
        change = update(escalations).where(_the(escalation_id, tenant_id), escalations.c.state.in_(allowed))
        async with audited(self._db) as journal:
            row = (await journal.connection.execute(change.values(sealed).returning(*_COLUMNS))).first()
            if row is not None:
                record = build(self._record, row)
                await _write_down(self._db, journal, record, by)
        if row is None:
            at = await self.get(escalation_id, tenant_id)
            who = at.closed_by if at.state == "closed" else at.taken_by
            raise Conflict(f"the escalation is already {at.state} by {who}")
        return record

    # Last: from here on `list` is this method.
    async def list(
        self, tenant_id: str, limit: int = 50, cursor: str | None = None, *, state: EscalationState | None = None
    ) -> Page[EscalationRecord]:
        """Newest first. Raises Invalid for limit or cursor."""
        query = select(*_COLUMNS).where(escalations.c.tenant_id == tenant_id)
        if state is not None:
            query = query.where(escalations.c.state == state)
        position = (escalations.c.created_at, escalations.c.escalation_id)
        async with self._db.read() as connection:
            return await page(connection, query, self._record, position, limit, cursor)


async def raise_for(
    database: Database, journal: Journal, run_id: str, tenant_id: str, reason: str, detail: str = ""
) -> EscalationRecord:
    """To be called in the transaction of what it is raised for; of a run that the caller knows."""
    same = select(*_COLUMNS).where(
        escalations.c.run_id == run_id,
        escalations.c.tenant_id == tenant_id,
        escalations.c.reason == reason,
        escalations.c.state != "closed",
    )
    made = database.seals.reader(escalations, EscalationRecord)
    for standing in (await journal.connection.execute(same)).all():
        if (record := build(made, standing)).detail == clean(detail):
            return record
    row = {
        "escalation_id": new_id(),
        "run_id": run_id,
        "tenant_id": tenant_id,
        "reason": reason,
        "detail": detail,
        "created_at": database.clock(),
    }
    written = await journal.connection.execute(
        insert(escalations).values(database.seals.seal(escalations, row)).returning(*_COLUMNS)
    )
    record = build(made, written.one())
    await _write_down(database, journal, record, PLATFORM)
    return record


async def _write_down(database: Database, journal: Journal, record: EscalationRecord, by: Actor) -> None:
    told = _TOLD[record.state]
    await journal.note(told, by, record.tenant_id, record.escalation_id, {"run": record.run_id})
    named = {"subject": record.escalation_id, "run_id": record.run_id, "tenant_id": record.tenant_id}
    await note(database, journal.connection, told, **named)


def _the(escalation_id: str, tenant_id: str) -> ColumnElement[bool]:
    return (escalations.c.escalation_id == escalation_id) & (escalations.c.tenant_id == tenant_id)
