"""Statements that every run executes, compiled once: their rows go to the driver as it takes them.

For each execution SQLAlchemy looks the statement up, copies its parameters and makes a result, which costs several
times what SQLite does with it (benchmarks/statements.py). The text and the values stay SQLAlchemy's own: its dialect
compiles, its types convert.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import UpdateBase

Row = Mapping[str, Any]
Converter = Callable[[Any], Any]


class Prepared:
    """An INSERT or UPDATE for rows that all have the same keys: columns, and the statement's own bind parameters."""

    def __init__(self, statement: UpdateBase, dialect: Dialect) -> None:
        self._statement, self._dialect = statement, dialect
        self._text = ""
        self._by_place, self._keys = False, 0
        self._converters: list[tuple[str, Converter | None]] = []
        self._defaults: list[tuple[str, Any]] = []

    def one(self, connection: Connection, row: Row) -> tuple[Any, ...] | None:
        """Execute it for one row; the first row that it returns, if it returns any."""
        text, values = self._text or self._compile(row), self._converted(row)
        if self._dialect.name == "sqlite":
            with translated(text, values):
                first: tuple[Any, ...] | None = driver(connection).execute(text, values).fetchone()
                return first
        result = connection.exec_driver_sql(text, values)
        return tuple(found) if result.returns_rows and (found := result.first()) is not None else None

    def many(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute it for each row; without rows do nothing."""
        if not rows:
            return
        text = self._text or self._compile(rows[0])
        values = [self._converted(row) for row in rows]
        if self._dialect.name == "sqlite":
            with translated(text, values):
                driver(connection).executemany(text, values)
        else:
            connection.exec_driver_sql(text, values)

    def _compile(self, row: Row) -> str:
        dialect = self._dialect
        compiled = self._statement.compile(dialect=dialect, column_keys=list(row))
        self._by_place, self._keys = compiled.positional, len(row)
        names = compiled.positiontup or list(compiled.binds)
        types = {name: compiled.binds[name].type.dialect_impl(dialect) for name in names}
        self._converters = [(name, types[name].bind_processor(dialect)) for name in names]
        self._defaults = [(column.key, column.default) for column in compiled.insert_prefetch]
        self._text = compiled.string
        return self._text

    def _converted(self, row: Row) -> Any:
        if len(row) != self._keys:
            raise ValueError(f"a row with {len(row)} keys for a statement that was made for {self._keys}")
        if self._defaults:
            filled = {
                name: default.arg(None) if default.is_callable else default.arg for name, default in self._defaults
            }
            row = {**filled, **row}
        if self._by_place:
            return tuple([row[name] if to is None else to(row[name]) for name, to in self._converters])
        return {name: row[name] if to is None else to(row[name]) for name, to in self._converters}


def driver(connection: Connection) -> Any:
    """SQLite's own connection under SQLAlchemy's."""
    return connection.connection.dbapi_connection


@contextmanager
def translated(text: str, values: Any) -> Iterator[None]:
    """SQLite's errors as SQLAlchemy raises them."""
    try:
        yield
    except sqlite3.Error as error:
        raise DBAPIError.instance(text, values, error, sqlite3.Error, hide_parameters=True) from error
