"""Brings what lies in tables under the key that seals now, some rows at a time, beside those who read and write.

Each batch is one transaction in which its rows are read and written back, so a reader sees a row sealed with one key or
the other and never half of it, and whoever is killed has lost at most a batch. What is done is seen in the rows
themselves: doing it again begins where it ended.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    cast,
    func,
    or_,
    select,
    tuple_,
    update,
)

from app.services.database import Database
from app.services.vault import Vault

AT_ONCE: Final = 100
LARGE_AT_ONCE: Final = 4  # rows whose contents may be files
_NOTHING: Final = ("", "{}", "[]", "null", '""')


class Reseal:
    """Of all tables in `tables` that have sealed columns."""

    def __init__(self, database: Database, vault: Vault, tables: Sequence[Table]) -> None:
        self._db, self._vault = database, vault
        self._tables = [table for table in tables if database.seals.of(table).forms]

    async def left(self) -> int:
        """How many rows hold something that is not sealed with the current key."""
        mark, count = self._vault.mark, 0
        async with self._db.read() as connection:
            for table in self._tables:
                query = select(func.count()).select_from(table).where(self._stale(table, mark))
                count += int((await connection.execute(query)).scalar_one())
        return count

    async def run(self) -> AsyncIterator[int]:
        """How many rows each batch had. Raises VaultError for a row that no key at hand opens; it stays as it is."""
        mark = self._vault.mark
        for table in self._tables:
            last: Sequence[Any] | None = None
            while True:
                last, count = await self._batch(table, mark, last)
                if not count:
                    break
                yield count

    async def _batch(self, table: Table, mark: str, last: Sequence[Any] | None) -> tuple[Sequence[Any] | None, int]:
        keys = list(table.primary_key)
        at_once = LARGE_AT_ONCE if any(form.binary for form in self._db.seals.of(table).forms.values()) else AT_ONCE
        query = self._rows(table, mark, keys).order_by(*keys).limit(at_once)
        if last is not None:
            query = query.where(tuple_(*keys) > tuple_(*last))
        async with self._db.write() as connection:
            rows = (await connection.execute(query.with_for_update(of=table))).all()
            for row in rows:
                changed = self._sealed_anew(table, row._mapping)
                mine = and_(*(key == row._mapping[key.name] for key in keys))
                await connection.execute(update(table).where(mine).values(changed))
        return (None, 0) if not rows else ([rows[-1]._mapping[key.name] for key in keys], len(rows))

    def _sealed_anew(self, table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
        seals = self._db.seals
        anew = seals.seal(table, seals.open(table, row))
        return {name: anew[name] for name in seals.of(table).forms}

    def _rows(self, table: Table, mark: str, keys: Sequence[Column[Any]]) -> Select[Any]:
        sealing = self._db.seals.of(table)
        names = dict.fromkeys([*(key.name for key in keys), *sealing.bound, *sealing.forms])
        columns = [table.c[name] for name in names]
        if "tenant_id" in table.c:
            return select(*columns, table.c.tenant_id).where(self._stale(table, mark))
        (foreign,) = table.foreign_keys  # a table of no tenant belongs to rows of one that has them
        owner = foreign.column.table
        joined = table.join(owner, foreign.parent == foreign.column)
        return select(*columns, owner.c.tenant_id).select_from(joined).where(self._stale(table, mark))

    def _stale(self, table: Table, mark: str) -> ColumnElement[bool]:
        return or_(*(_stale(table.c[name], mark) for name in self._db.seals.of(table).forms))


def _stale(column: Column[Any], mark: str) -> ColumnElement[bool]:
    """Whether it holds something, and that is not sealed with the current key. JSON puts texts in quotes."""
    if isinstance(column.type, LargeBinary):
        begins = func.substr(column, 1, len(mark), type_=LargeBinary)
        return and_(column.is_not(None), func.length(column) > 0, begins != mark.encode())
    text = cast(column, Text)
    return and_(
        text.is_not(None),
        text.not_in(_NOTHING),
        func.substr(text, 1, len(mark)) != mark,
        func.substr(text, 2, len(mark)) != mark,
    )
