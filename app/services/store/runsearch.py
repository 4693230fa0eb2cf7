"""Looks for a text in questions and answers. Both are sealed, so they are opened here, the newest first."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.seals import Seals
from app.services.store.page import after, cursor_at
from app.services.store.tables import runs
from app.services.store.text import clean

POSITION: Final = (runs.c.created_at, runs.c.run_id)
AT_ONCE: Final = 200
MOST: Final = 4_000  # of one look, a tenth of a second of opening; the next page goes on behind them
_COLUMNS: Final = (runs.c.run_id, runs.c.tenant_id, runs.c.created_at, runs.c.message, runs.c.answer)


async def runs_with(
    connection: AsyncConnection,
    seals: Seals,
    where: list[ColumnElement[bool]],
    text: str,
    limit: int,
    cursor: str | None,
) -> tuple[list[str], str | None]:
    """The ids of at most `limit` runs, and where to go on; fewer where so many were looked at. Raises Invalid."""
    wanted, found, looked = clean(text).casefold(), list[str](), 0
    query: Select[Any] = select(*_COLUMNS).where(*where).order_by(*(column.desc() for column in POSITION))
    last = cursor
    while looked < MOST:
        rows = (await connection.execute(after(query, POSITION, last).limit(AT_ONCE))).all()
        for row in rows:
            opened = seals.open(runs, row._mapping)
            if wanted in opened["message"].casefold() or wanted in opened["answer"].casefold():
                if len(found) == limit:
                    return found, last
                found.append(row.run_id)
            last = cursor_at(row.created_at, row.run_id)
        looked += len(rows)
        if len(rows) < AT_ONCE:
            return found, None
    return found, last
