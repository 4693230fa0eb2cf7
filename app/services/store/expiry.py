"""Takes out of the store's tables what was kept long enough, a tenant's and some at a time.

A run that waits or goes on is not over, and neither is its conversation: however old, both stay.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import ColumnElement, Table, and_, delete, exists, or_, select, tuple_, union, update

from app.services.audit import PLATFORM, Journal, audited
from app.services.store.database import Database
from app.services.store.erasure import counted
from app.services.store.tables import (
    approvals,
    conversations,
    documents,
    escalations,
    events,
    feedback,
    messages,
    runs,
    spans,
    tickets,
)

AT_ONCE: Final = 200
Whole = Literal["conversations", "runs"]
Alone = Literal["feedback", "escalations", "approvals", "tickets"]
_KEYS: Final = {"conversations": conversations.c.conversation_id, "runs": runs.c.run_id}
_OF_RUNS: Final = (events, spans, approvals, escalations, feedback)
_ALONE: Final[Mapping[Alone, Table]] = {
    "feedback": feedback,
    "escalations": escalations,
    "approvals": approvals,
    "tickets": tickets,
}


@dataclass(frozen=True, slots=True)
class Due:
    """What is over and old enough of a tenant: conversations, or runs without one, and the ids of all their runs."""

    kind: Whole
    tenant_id: str
    ids: Sequence[str]
    run_ids: Sequence[str]


class Expiries:
    """Each method can be called again: what is gone already counts as nothing."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def tenants(self) -> Sequence[str]:
        """All that have anything here, by name."""
        tables = (conversations, runs, documents, *_ALONE.values())
        query = union(*(select(table.c.tenant_id) for table in tables))
        async with self._db.read() as connection:
            return sorted((await connection.execute(query)).scalars())

    async def due(self, kind: Whole, tenant_id: str, before: datetime) -> Due:
        """Some that ended before then. From now on nobody exports their traces."""
        chosen = select(_KEYS[kind]).where(_is_old(kind, tenant_id, before)).limit(AT_ONCE)
        async with self._db.read() as connection:
            ids = tuple((await connection.execute(chosen)).scalars())
        if not ids:
            return Due(kind, tenant_id, (), ())
        mine = _runs(kind, ids)
        unsent = update(runs).where(mine, runs.c.exported_at.is_(None)).values(exported_at=self._db.clock())
        async with self._db.write() as connection:
            await connection.execute(unsent)
            run_ids = tuple((await connection.execute(select(runs.c.run_id).where(mine))).scalars())
        return Due(kind, tenant_id, ids, run_ids)

    async def drop(self, due: Due, before: datetime) -> Mapping[str, int]:
        """How many rows of each table went. A conversation that goes on since it was found stays."""
        key = _KEYS[due.kind]
        async with audited(self._db) as journal:
            # A run that begins holds its conversation; once all are held here, what is old stays so.
            await journal.connection.execute(select(key).where(key.in_(due.ids)).with_for_update())
            still = select(key).where(key.in_(due.ids), _is_old(due.kind, due.tenant_id, before))
            ids = tuple((await journal.connection.execute(still)).scalars())
            counts = await _counted(journal, due.kind, ids)
            await journal.connection.execute(delete(key.table).where(key.in_(ids)))
            await _note(journal, due.kind, due.tenant_id, sum(counts.values()))
        return counts

    async def drop_alone(self, kind: Alone, tenant_id: str, before: datetime) -> int:
        """Some opinions, closed escalations, decided approvals or tickets from before then; how many those were."""
        table = _ALONE[kind]
        key = tuple(table.primary_key)
        old = select(*key).where(table.c.tenant_id == tenant_id, _is_over(kind, before)).limit(AT_ONCE)
        async with audited(self._db) as journal:
            gone = (await journal.connection.execute(delete(table).where(tuple_(*key).in_(old)))).rowcount
            await _note(journal, kind, tenant_id, gone)
        return gone


async def _note(journal: Journal, kind: str, tenant_id: str, rows: int) -> None:
    if rows:
        await journal.note("retention.swept", PLATFORM, tenant_id, "", {"kind": kind, "rows": rows})


async def _counted(journal: Journal, kind: Whole, ids: Sequence[str]) -> dict[str, int]:
    of_run = select(runs.c.run_id).where(_runs(kind, ids))
    wheres = [(runs, _runs(kind, ids)), *((table, table.c.run_id.in_(of_run)) for table in _OF_RUNS)]
    if kind == "conversations":
        wheres += [(table, table.c.conversation_id.in_(ids)) for table in (conversations, messages)]
    return await counted(journal.connection, wheres)


def _runs(kind: Whole, ids: Sequence[str]) -> ColumnElement[bool]:
    return (runs.c.conversation_id if kind == "conversations" else runs.c.run_id).in_(ids)


def _is_old(kind: Whole, tenant_id: str, before: datetime) -> ColumnElement[bool]:
    if kind == "runs":
        alone = and_(runs.c.tenant_id == tenant_id, runs.c.conversation_id.is_(None))
        return and_(alone, runs.c.created_at < before, runs.c.ended_at < before)
    lives = or_(runs.c.ended_at.is_(None), runs.c.ended_at >= before)
    goes_on = exists().where(runs.c.conversation_id == conversations.c.conversation_id, lives)
    return and_(conversations.c.tenant_id == tenant_id, conversations.c.created_at < before, ~goes_on)


def _is_over(kind: Alone, before: datetime) -> ColumnElement[bool]:
    if kind == "escalations":
        return escalations.c.closed_at < before
    if kind == "approvals":
        is_over = exists().where(runs.c.run_id == approvals.c.run_id, runs.c.ended_at.is_not(None))
        return and_(approvals.c.decided_at < before, is_over)
    return _ALONE[kind].c.created_at < before
