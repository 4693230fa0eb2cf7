"""Pages of lists, newest first, and the opaque cursors between them.

A cursor is the position of the last row given, not a count: rows that come or go in between neither repeat nor hide
others. It holds no rights: every page asks for its tenant again.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any, Final, TypeVar

from sqlalchemy import Column, Row, Select, Table, and_, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.store.records import Page
from graphs.errors import Invalid

T = TypeVar("T")
MAX_LIMIT: Final = 200
_POSITION: Final = ("_at", "_key")


def columns(table: Table, record: type) -> list[Column[Any]]:
    """The columns that `record` is made of: its fields, by name."""
    return [table.c[field.name] for field in fields(record)]


def build(record: Callable[..., T], row: Row[*tuple[Any, ...]]) -> T:
    """`record` from a row that `columns` chose."""
    return record(**row._mapping)


async def page(
    connection: AsyncConnection,
    query: Select[Any],
    record: Callable[..., T],
    position: tuple[Column[Any], Column[Any]],
    limit: int,
    cursor: str | None,
) -> Page[T]:
    """One page of `query`, ordered by `position` (a time and a unique id), newest first.

    Raises Invalid for a limit outside 1..200 and for a cursor that is not one of ours.
    """
    check_limit(limit)
    moment, key = position
    query = after(query, position, cursor)
    query = query.add_columns(moment.label("_at"), key.label("_key")).order_by(moment.desc(), key.desc())
    rows = (await connection.execute(query.limit(limit + 1))).all()
    items = [record(**_named(row)) for row in rows[:limit]]
    return Page(items, cursor_at(*rows[limit - 1][-2:]) if len(rows) > limit else None)


def check_limit(limit: int) -> None:
    """Raises Invalid."""
    if not 1 <= limit <= MAX_LIMIT:
        raise Invalid(f"limit must be between 1 and {MAX_LIMIT}, not {limit}", field="limit")


def after(query: Select[Any], position: tuple[Column[Any], Column[Any]], cursor: str | None) -> Select[Any]:
    """`query` behind the cursor. Raises Invalid for one that is not ours."""
    if cursor is None:
        return query
    moment, key = position
    last_at, last_key = _decode(cursor)
    return query.where(or_(moment < last_at, and_(moment == last_at, key < last_key)))


def _named(row: Row[*tuple[Any, ...]]) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in _POSITION}


def cursor_at(moment: datetime, key: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([moment.isoformat(), key]).encode()).decode().rstrip("=")


def _decode(cursor: str) -> tuple[datetime, str]:
    forged = Invalid("the cursor is not one that this list gave", field="cursor")
    try:
        moment, key = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
        at = datetime.fromisoformat(moment)
    except (ValueError, TypeError, RecursionError) as error:
        raise forged from error
    if not isinstance(key, str) or at.tzinfo is None:
        raise forged
    return at, key
