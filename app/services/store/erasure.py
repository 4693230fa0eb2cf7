"""Takes a person, or one conversation, out of the store's tables."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Table, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.records import Actor
from app.services.audit import audited, people
from app.services.store.database import Database
from app.services.store.tables import (
    approvals,
    conversations,
    escalations,
    events,
    feedback,
    keys,
    messages,
    repeats,
    runs,
    spans,
    tickets,
)

ERASED: Final = "(erased)"  # in place of who decided for others
_NAMED: Final = (
    (approvals, ("decided_by", "first_by")),
    (escalations, ("taken_by", "closed_by")),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """Who or what is to be erased: a user of a tenant, or, where `conversation_id` is there, that one alone."""

    tenant_id: str
    user_id: str = ""
    conversation_id: str = ""

    @property
    def runs(self) -> ColumnElement[bool]:
        mine = runs.c.tenant_id == self.tenant_id
        if self.conversation_id:
            return mine & (runs.c.conversation_id == self.conversation_id)
        # Somebody else's runs in a conversation of theirs go with it.
        own = select(conversations.c.conversation_id).where(self.conversations)
        return mine & or_(runs.c.user_id == self.user_id, runs.c.conversation_id.in_(own))

    @property
    def conversations(self) -> ColumnElement[bool]:
        mine = conversations.c.tenant_id == self.tenant_id
        if self.conversation_id:
            return mine & (conversations.c.conversation_id == self.conversation_id)
        return mine & (conversations.c.user_id == self.user_id)

    def owns(self, table: Table) -> ColumnElement[bool]:
        return (table.c.tenant_id == self.tenant_id) & (table.c.user_id == self.user_id)


@dataclass(frozen=True, slots=True)
class Found:
    """The runs to be erased, which of them are not over, and the providers that were asked in them. `on_the_way` says
    that an exporter may have some of them in its hands."""

    run_ids: tuple[str, ...]
    open_ids: tuple[str, ...]
    providers: tuple[str, ...]
    on_the_way: bool


class Erasures:
    """Each method can be called again: what is gone already counts as nothing."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def withhold(self, subject: Subject) -> Found:
        """Find the runs, and have nobody export their traces from now on."""
        query = select(runs.c.run_id, runs.c.ended_at, runs.c.provider).where(subject.runs)
        async with self._db.write() as connection:
            found = (await connection.execute(query)).all()
            unsent = update(runs).where(subject.runs, runs.c.exported_at.is_(None))
            on_the_way = (await connection.execute(unsent.values(exported_at=self._db.clock()))).rowcount > 0
        return Found(
            tuple(row.run_id for row in found),
            tuple(row.run_id for row in found if row.ended_at is None),
            tuple(sorted({row.provider for row in found if row.provider})),
            on_the_way,
        )

    async def erase(self, subject: Subject, by: Actor) -> Mapping[str, int]:
        """How many rows of each table went. One transaction, with an entry in the trail that names nobody."""
        async with audited(self._db) as journal:
            connection = journal.connection
            counts = await self._counted(connection, subject)
            await connection.execute(delete(runs).where(subject.runs))
            await connection.execute(delete(conversations).where(subject.conversations))
            erased = subject.conversation_id
            if not subject.conversation_id:
                for table in (feedback, tickets, keys, repeats):
                    await connection.execute(delete(table).where(_spared(subject, table)))
                for table, columns in _NAMED:
                    for name in columns:
                        whose = (table.c.tenant_id == subject.tenant_id) & (table.c[name] == subject.user_id)
                        await connection.execute(update(table).where(whose).values({name: ERASED}))
                mine = delete(people).where(subject.owns(people)).returning(people.c.person_id)
                erased = (await connection.execute(mine)).scalar_one_or_none() or ""
                counts = {**counts, "audit_people": int(bool(erased))}
            if any(counts.values()):
                rows = {"rows": sum(counts.values())}
                await journal.note("person.erased", by, subject.tenant_id, erased, rows)
        return counts

    async def _counted(self, connection: AsyncConnection, subject: Subject) -> dict[str, int]:
        of_run = select(runs.c.run_id).where(subject.runs)
        held = select(conversations.c.conversation_id).where(subject.conversations)
        wheres: list[tuple[Table, ColumnElement[bool]]] = [
            (conversations, subject.conversations),
            (messages, messages.c.conversation_id.in_(held)),
            (runs, subject.runs),
            *((table, table.c.run_id.in_(of_run)) for table in (events, spans, approvals, escalations)),
        ]
        if subject.conversation_id:
            wheres.append((feedback, feedback.c.run_id.in_(of_run)))
        else:
            wheres.append((feedback, or_(feedback.c.run_id.in_(of_run), subject.owns(feedback))))
            wheres += [(table, _spared(subject, table)) for table in (tickets, keys, repeats)]
        return await counted(connection, wheres)


async def counted(connection: AsyncConnection, wheres: Iterable[tuple[Table, ColumnElement[bool]]]) -> dict[str, int]:
    """How many rows of each table are meant, by its name."""
    found = {}
    for table, where in wheres:
        query = select(func.count()).select_from(table).where(where)
        found[table.name] = int((await connection.execute(query)).scalar_one())
    return found


def _spared(subject: Subject, table: Table) -> ColumnElement[bool]:
    """The rows of the person; the owner's own key, which the installation needs, is not among them."""
    mine = subject.owns(table)
    return mine & keys.c.imported.is_(False) if table is keys else mine
