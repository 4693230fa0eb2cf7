"""Conversations and their messages: the one place where a history is kept."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, delete, insert, literal, select

from app.ids import new_id
from app.records import Actor
from app.services.audit import OPERATOR, audited
from app.services.seals import Reader
from app.services.store.database import Database
from app.services.store.page import build, columns, page
from app.services.store.records import ConversationRecord, MessageRecord, Page
from app.services.store.tables import conversations, messages, runs
from graphs.errors import Missing

_COLUMNS = columns(conversations, ConversationRecord)
_MESSAGE_COLUMNS = columns(messages, MessageRecord)


class Conversations:
    """A user's conversations; `user_id` None reaches all of the tenant's."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._record = database.seals.reader(conversations, ConversationRecord)

    async def create(self, tenant_id: str, user_id: str, title: str) -> ConversationRecord:
        row = {
            "conversation_id": new_id(),
            "tenant_id": tenant_id,
            "user_id": user_id,
            "title": title,
            "created_at": self._db.clock(),
        }
        async with self._db.write() as connection:
            sealed = self._db.seals.seal(conversations, row)
            created = await connection.execute(insert(conversations).values(sealed).returning(*_COLUMNS))
            return build(self._record, created.one())

    async def get(self, conversation_id: str, tenant_id: str, user_id: str | None) -> ConversationRecord:
        """Raises Missing."""
        query = select(*_COLUMNS).where(owned(conversation_id, tenant_id, user_id))
        async with self._db.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise Missing("no such conversation")
        return build(self._record, row)

    async def delete(self, conversation_id: str, tenant_id: str, user_id: str | None) -> Sequence[str]:
        """Remove it with all its contents: messages, runs, their events, spans, feedback, approvals and escalations.

        Tickets stay. Gives the runs that had not ended; one still in flight ends without leaving a row. Raises Missing.
        """
        unended = select(runs.c.run_id).where(runs.c.conversation_id == conversation_id, runs.c.ended_at.is_(None))
        gone = delete(conversations).where(owned(conversation_id, tenant_id, user_id))
        async with audited(self._db) as journal:
            left = (await journal.connection.execute(unended)).scalars().all()
            if (await journal.connection.execute(gone)).rowcount == 0:
                raise Missing("no such conversation")
            by = OPERATOR if user_id is None else Actor(tenant_id, user_id)
            await journal.note("conversation.erased", by, tenant_id, conversation_id)
        return left

    async def append(
        self, conversation_id: str, tenant_id: str, role: str, content: str, run_id: str | None
    ) -> MessageRecord:
        """Raises Missing if the tenant has no such conversation."""
        row = {
            "message_id": new_id(),
            "conversation_id": conversation_id,
            "tenant_id": tenant_id,
            "run_id": run_id,
            "role": role,
            "content": content,
            "created_at": self._db.clock(),
        }
        sealed = self._db.seals.seal(messages, row)
        source = select(*(literal(value, messages.c[name].type) for name, value in sealed.items())).where(
            select(conversations).where(owned(conversation_id, tenant_id, None)).exists()
        )
        statement = insert(messages).from_select(list(row), source).returning(*_MESSAGE_COLUMNS)
        async with self._db.write() as connection:
            written = (await connection.execute(statement)).first()
            if written is None:
                raise Missing("no such conversation")
            return build(self._message(tenant_id), written)

    async def messages(
        self, conversation_id: str, tenant_id: str, user_id: str | None, limit: int = 200
    ) -> list[MessageRecord]:
        """The last `limit` messages, oldest first. Raises Missing."""
        here = owned(conversation_id, tenant_id, user_id)
        query = (
            select(*_MESSAGE_COLUMNS)
            .where(messages.c.conversation_id == conversation_id, messages.c.tenant_id == tenant_id)
            .order_by(messages.c.sequence.desc())
            .limit(limit)
        )
        async with self._db.read() as connection:
            if (await connection.execute(select(conversations.c.conversation_id).where(here))).first() is None:
                raise Missing("no such conversation")
            rows = (await connection.execute(query)).all()
        message = self._message(tenant_id)
        return [build(message, row) for row in reversed(rows)]

    def _message(self, tenant_id: str) -> Reader[MessageRecord]:
        return self._db.seals.reader(messages, MessageRecord, tenant_id=tenant_id)

    # Last: from here on `list` is this method.
    async def list(
        self, tenant_id: str, user_id: str | None, limit: int = 50, cursor: str | None = None
    ) -> Page[ConversationRecord]:
        """Newest first. Raises Invalid for limit or cursor."""
        query = select(*_COLUMNS).where(conversations.c.tenant_id == tenant_id)
        if user_id is not None:
            query = query.where(conversations.c.user_id == user_id)
        position = (conversations.c.created_at, conversations.c.conversation_id)
        async with self._db.read() as connection:
            return await page(connection, query, self._record, position, limit, cursor)


def owned(conversation_id: str, tenant_id: str, user_id: str | None) -> ColumnElement[Any]:
    """The one conversation, if this tenant (and user) has it."""
    mine = (conversations.c.conversation_id == conversation_id) & (conversations.c.tenant_id == tenant_id)
    return mine if user_id is None else mine & (conversations.c.user_id == user_id)
