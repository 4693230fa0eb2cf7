"""What others are to hear of, written in the transaction in which it happens and kept until it has been passed on."""

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ids import new_id
from app.services.store.database import Database
from app.services.store.page import build, columns
from app.services.store.records import Notice
from app.services.store.tables import notices

NoticeKind = Literal[
    "approval.waiting",
    "approval.approved_once",
    "approval.expiring",
    "approval.approved",
    "approval.denied",
    "approval.expired",
    "approval.void",
    "escalation.opened",
    "escalation.taken",
    "escalation.closed",
]
_COLUMNS = columns(notices, Notice)


async def note(
    database: Database,
    connection: AsyncConnection,
    kind: NoticeKind,
    *,
    subject: str,
    run_id: str,
    tenant_id: str,
    tool: str = "",
    risk: str = "",
) -> None:
    """To be called in the transaction in which it happens."""
    row = Notice(new_id(), run_id, tenant_id, kind, subject, tool, risk, database.clock())
    await connection.execute(notices.insert().values({column.name: getattr(row, column.name) for column in _COLUMNS}))


class Notices:
    """Of all tenants, for what passes them on."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def waiting(self, limit: int) -> list[Notice]:
        """Oldest first."""
        query = select(*_COLUMNS).order_by(notices.c.created_at, notices.c.notice_id).limit(limit)
        async with self._db.read() as connection:
            return [build(Notice, row) for row in await connection.execute(query)]

    async def passed_on(self, connection: AsyncConnection, notice_ids: Sequence[str]) -> None:
        """In the transaction that passes them on."""
        await connection.execute(delete(notices).where(notices.c.notice_id.in_(notice_ids)))
