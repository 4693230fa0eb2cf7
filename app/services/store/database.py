"""One database behind two doors: `read`, where each statement sees what is committed, and `write`, a transaction.

SQLite has one writer at a time. Writers of this process queue on a lock in arrival order and take the write lock at
BEGIN (IMMEDIATE), so a transaction never fails half-way when it turns from reading to writing; writers of other
processes wait in SQLite's own busy time-out. PostgreSQL needs none of this.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, Self, TypeVar

from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.sql.dml import UpdateBase

from app.services.seals import Seals
from app.services.store.migrate import migrate
from app.services.store.prepared import Prepared, driver, translated
from app.services.store.text import json_text
from app.services.store.together import Together
from app.services.store.vaults import admit, noted_keys
from app.services.vault import Vault
from graphs.errors import UpstreamError

BUSY_TIMEOUT_S: Final = 30.0
POOL_SIZE: Final = 10
DRIVERS: Final = ("sqlite+aiosqlite", "postgresql+psycopg")
DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_WRITES: Final = "pilothouse_writes"
_BEGIN: Final = "BEGIN IMMEDIATE"

Clock = Callable[[], datetime]
R = TypeVar("R")


class StoreUnavailable(UpstreamError):
    """The database does not answer, or not in time; nothing of the transaction was kept."""

    code = "store_unavailable"


def utc_now() -> datetime:
    return datetime.now(UTC)


class Database:
    """An open, migrated database."""

    def __init__(self, engine: AsyncEngine, clock: Clock, vault: Vault | None = None) -> None:
        self.clock = clock
        self.seals = Seals(vault)
        self._engine = engine
        self._writer = engine.execution_options(**{_WRITES: True})
        self._queue = asyncio.Lock() if engine.dialect.name == "sqlite" else None
        self._together = None if self._queue is None else Together(_one_writer(engine.url), self._queue)

    @classmethod
    async def open(cls, url: str, clock: Clock = utc_now, vault: Vault | None = None) -> Self:
        """Migrate what `url` names and connect to it. Raises ValueError for another driver or an in-memory SQLite,
        SchemaTooNew, StoreUnavailable, VaultError for a vault without a key that the database's contents need."""
        parsed = make_url(url)
        if parsed.drivername not in DRIVERS:
            raise ValueError(f"the database URL must start with one of {', '.join(DRIVERS)}, not {parsed.drivername}")
        if parsed.drivername == DRIVERS[0] and parsed.database in (None, "", ":memory:"):
            raise ValueError("SQLite needs a file: its connections would each see a memory of their own")
        try:
            await asyncio.to_thread(migrate, parsed, BUSY_TIMEOUT_S, vault)
        except (OSError, OperationalError, InterfaceError) as error:
            raise StoreUnavailable("the database could not be opened") from error
        except DatabaseError as error:
            raise _damaged(error) from error
        engine = create_async_engine(
            parsed,
            json_serializer=json_text,
            hide_parameters=True,  # an error's text goes to the log, and may not quote what callers wrote
            pool_size=POOL_SIZE,
            max_overflow=0,
            pool_timeout=BUSY_TIMEOUT_S,
            pool_pre_ping=parsed.drivername == DRIVERS[1],
        )
        if engine.dialect.name == "sqlite":
            event.listen(engine.sync_engine, "connect", _prepare_sqlite)
            event.listen(engine.sync_engine, "begin", _begin_sqlite)
        else:
            event.listen(engine.sync_engine, "connect", _prepare_postgresql)
        database = cls(engine, clock, vault)
        try:
            if vault is not None:
                await admit(database, vault)
            else:
                database.seals.shut = bool(await noted_keys(database))
        except BaseException:
            await database.close()
            raise
        return database

    async def close(self) -> None:
        if self._together is not None:
            await self._together.close()
        await self._engine.dispose()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """For statements that each stand alone, on both databases. Raises StoreUnavailable."""
        async with _translated(), self._engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """All or nothing: committed at the end of the block, rolled back if it raises. Raises StoreUnavailable."""
        async with AsyncExitStack() as stack:
            if self._queue is not None:
                await stack.enter_async_context(self._queue)
            await stack.enter_async_context(_translated())
            yield await stack.enter_async_context(self._writer.begin())

    async def scrub(self) -> bool:
        """Have SQLite's file hold nothing of what was deleted or replaced: the log beside it still has old pages. False
        where readers were in the way; the next who closes does it. PostgreSQL's VACUUM does the same in its own time.
        """
        if self._queue is None:
            return True
        async with self.read() as connection:
            busy, *_ = (await connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")).one()
        return not busy

    async def commit(self, work: Callable[[Connection], R]) -> R:
        """A whole transaction as a function, which may be run again: for what every request writes, at a fraction of
        what `write` costs. Raises StoreUnavailable, and what the work raises, with nothing kept."""
        async with _translated():
            if self._together is not None:
                return await self._together.commit(work)
            async with self._writer.begin() as connection:
                return await connection.run_sync(work)

    def prepare(self, statement: UpdateBase) -> Prepared:
        """The statement, for `commit`, at a fraction of what executing it through SQLAlchemy costs."""
        return Prepared(statement, self._engine.dialect)

    def insert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """An INSERT that knows ON CONFLICT, which SQLAlchemy spells by dialect."""
        return sqlite.insert(table) if self._queue is not None else postgresql.insert(table)


def _one_writer(url: URL) -> Engine:
    """A connection of SQLite's own driver, for one thread."""
    engine = create_engine(
        url.set(drivername="sqlite"),
        json_serializer=json_text,
        hide_parameters=True,
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False},
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_writing)
    return engine


@asynccontextmanager
async def _translated() -> AsyncIterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout) as error:
        raise StoreUnavailable("the database does not answer", retry_after_s=1) from error
    except DatabaseError as error:
        raise _damaged(error) from error


def _damaged(error: DatabaseError) -> Exception:
    """What SQLite says of a file that is none, or whose pages are broken; any other error of a statement as it is."""
    if getattr(error.orig, "sqlite_errorcode", None) in DAMAGE:
        return StoreUnavailable("the database's file is damaged; restore a backup")
    return error


def _prepare_postgresql(connection: Any, _record: Any) -> None:
    """A lock that another session keeps is waited for as long as SQLite's, and a session that stands still in a
    transaction of ours keeps its own no longer than twice that."""
    wait_ms = int(BUSY_TIMEOUT_S * 1000)
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = {wait_ms}")
    cursor.execute(f"SET idle_in_transaction_session_timeout = {2 * wait_ms}")
    cursor.close()
    connection.commit()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver's own transactions begin late and lazily; ours begin at BEGIN (see _begin_sqlite).
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in sqlite_pragmas(BUSY_TIMEOUT_S):
        cursor.execute(pragma)
    cursor.close()


def sqlite_pragmas(busy_timeout_s: float) -> Sequence[str]:
    """What every connection needs; WAL is a property of the file and set once, by the migration.

    synchronous=NORMAL may lose the last commits when the power fails, never when the process does, and never leaves
    the file inconsistent. secure_delete overwrites what a deleted conversation held.
    """
    return (
        f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}",
        "PRAGMA synchronous=NORMAL",
        "PRAGMA foreign_keys=ON",
        "PRAGMA secure_delete=ON",
    )


def _begin_writing(connection: Connection) -> None:
    with translated(_BEGIN, ()):
        driver(connection).execute(_BEGIN)


def _begin_sqlite(connection: Connection) -> None:
    # A single SELECT needs no BEGIN, and each word to aiosqlite's thread costs: 9 of them with it, 5 without.
    if connection.get_execution_options().get(_WRITES, False):
        connection.exec_driver_sql(_BEGIN)
