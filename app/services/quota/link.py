"""One connection to the ledger's database, in its driver's own words.

A row in a transaction of its own took 285 us through SQLAlchemy's Core and takes 50 this way, and every model call
waits for two. Statements are written once for both databases, with `?` for a value.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final

from sqlalchemy import URL, make_url

BUSY_TIMEOUT_S: Final = 10.0

Errors = tuple[type[Exception], ...]


class Away(Exception):
    """The database does not answer, or cannot write. As far as is known, nothing of the transaction was kept."""


class Busy(Away):
    """Somebody else is writing, and the link was not to wait for it."""


class Again(Away):
    """The transaction may be tried again at once: it met a deadlock, or a connection that had been lost before it."""


class Unwritable(Exception):
    """A value that this database can never hold."""


class Link:
    """Used by one thread. Connects when a transaction needs it, and anew after a failure."""

    locking: ClassVar[str] = ""
    """Behind a SELECT: nobody else changes its rows until the transaction ends."""
    keeping: ClassVar[str] = ""
    """Behind a SELECT: nobody else deletes its rows until the transaction ends."""
    _begin: ClassVar[str]
    _unwritable: Errors
    _again: Errors
    _away: Errors

    def __init__(self, url: URL) -> None:
        self._url = url
        self._connection: Any = None
        self._connected_before = False

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing. Raises Away, Unwritable, and what its block raises."""
        self._connected_before, begun = self._connection is not None, False
        try:
            self._asked(self._start)
            begun = True
            yield
            self._asked(self._connection.execute, "COMMIT")
        except Busy:
            if begun:
                self._roll_back()
            raise
        except Away:
            self.close()
            raise
        except BaseException:
            self._roll_back()
            raise

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self._asked(self._fetch, self._spelled(statement), values)
        return found

    def write(self, statement: str, *values: Any) -> int:
        """Gives how many rows it changed."""
        return int(self._asked(self._connection.execute, self._spelled(statement), values).rowcount)

    def write_many(self, statement: str, values: Sequence[Sequence[Any]]) -> int:
        """Gives how many rows it changed in all."""
        cursor = self._asked(self._connection.cursor)
        self._asked(cursor.executemany, self._spelled(statement), values)
        return int(cursor.rowcount)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def checkpoint(self) -> None:
        """Move what was committed to where it stays, which waits for the disk. Raises Away."""

    def _roll_back(self) -> None:
        try:
            self._asked(self._connection.execute, "ROLLBACK")
        except Away:
            self.close()

    def _connect(self) -> Any:
        raise NotImplementedError

    def _spelled(self, statement: str) -> str:
        return statement

    def _start(self) -> None:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute(self._begin)

    def _fetch(self, statement: str, values: Sequence[Any]) -> Any:
        return self._connection.execute(statement, values).fetchall()

    def _asked(self, ask: Callable[..., Any], *what: Any) -> Any:
        """What the driver answers, its errors in our words."""
        try:
            return ask(*what)
        except self._unwritable as error:
            raise Unwritable(str(error)) from error
        except self._again as error:
            raise Again(str(error)) from error
        except self._away as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Away:
        return Away(str(error))


class SqliteLink(Link):
    _begin = "BEGIN IMMEDIATE"
    _unwritable = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.InterfaceError, OverflowError, UnicodeError)
    _again = ()
    _away = (sqlite3.Error,)

    def __init__(self, url: URL, *, durable: bool, waits: bool) -> None:
        """`waits` for other writers, and for the disk where a commit comes to a checkpoint."""
        super().__init__(url)
        self._synchronous = "FULL" if durable else "NORMAL"
        self._waits = waits

    def checkpoint(self) -> None:
        self._asked(self._fold_in)

    def _fold_in(self) -> None:
        if self._connection is None:
            self._connection = self._connect()
        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def _connect(self) -> Any:
        connection = sqlite3.connect(
            str(self._url.database),
            timeout=BUSY_TIMEOUT_S if self._waits else 0,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        if not self._waits:
            connection.execute("PRAGMA wal_autocheckpoint=0")
        return connection

    def _lost(self, error: Exception) -> Away:
        code = getattr(error, "sqlite_errorcode", None) or 0
        if not self._waits and code & 0xFF == sqlite3.SQLITE_BUSY:
            return Busy(str(error))
        return Away(str(error))


class PostgresLink(Link):
    locking = " FOR UPDATE"
    keeping = " FOR KEY SHARE"
    _begin = "BEGIN ISOLATION LEVEL READ COMMITTED"

    def __init__(self, url: URL) -> None:
        # Imported here: an installation on SQLite never needs it.
        import psycopg

        super().__init__(url)
        self._driver = psycopg
        self._unwritable = (psycopg.IntegrityError, psycopg.DataError, OverflowError, UnicodeError)
        self._again = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
        self._away = (psycopg.Error,)

    def _connect(self) -> Any:
        _, named = self._url.get_dialect()().create_connect_args(self._url)
        timeout_ms = int(BUSY_TIMEOUT_S * 1000)
        limits = ("statement_timeout", "idle_in_transaction_session_timeout")
        given = {
            "connect_timeout": int(BUSY_TIMEOUT_S),
            # A server that is gone without a word is noticed, and one that hears no more of us lets our locks go.
            "tcp_user_timeout": timeout_ms,
            "keepalives_idle": 5,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "options": " ".join(
                [str(named.pop("options", "")), *(f"-c {name}={timeout_ms}" for name in limits)]
            ).strip(),
        }
        return self._driver.connect(**{**given, **named}, autocommit=True)

    def _spelled(self, statement: str) -> str:
        return statement.replace("?", "%s")

    def _lost(self, error: Exception) -> Away:
        connection = self._connection
        return (
            Again(str(error))
            if connection is not None and connection.closed and self._connected_before
            else Away(str(error))
        )


def open_link(url: str, *, durable: bool) -> Link:
    """`durable` has SQLite wait for the disk at each commit; a PostgreSQL does as its server is set."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return SqliteLink(parsed, durable=durable, waits=True)
    return PostgresLink(parsed)


def open_quick_link(url: str) -> Link | None:
    """A link whose commits wait for nobody: with SQLite one takes 50 us, less than telling another thread to do it.

    None where a commit is a journey. Who uses it has to call `checkpoint` of another link now and then.
    """
    parsed = make_url(url)
    return SqliteLink(parsed, durable=False, waits=False) if parsed.get_backend_name() == "sqlite" else None
