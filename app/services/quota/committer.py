"""Group commit: what many requests want written goes into one transaction of one thread.

A caller waits for its commit and no longer. While one transaction is on its way the next one gathers, so a commit's
cost is shared by all requests that are in flight. Work is done in the order of its arrival.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, create_engine, event, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from graphs.errors import UpstreamError

log = logging.getLogger("pilothouse.ledger")

BUSY_TIMEOUT_S: Final = 10.0
MAX_BATCH: Final = 512

P = TypeVar("P")
R = TypeVar("R")
Handler = Callable[[Connection, Sequence[P]], Sequence[R]]


class LedgerUnavailable(UpstreamError):
    """The ledger's database does not answer. Nothing is called on credit: the request fails."""

    code = "ledger_unavailable"


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[P, R]):
    """A kind of work: how many payloads of it are written at once. Kinds of a lower `order` go first in a batch."""

    name: str
    order: int
    handle: Handler[P, R]


@dataclass(frozen=True, slots=True)
class _Work:
    kind: Kind[Any, Any]
    payload: Any
    future: asyncio.Future[Any]


class Committer:
    """One connection and one thread for all writes of the ledger. `durable` waits for the disk at each commit."""

    def __init__(self, url: str, *, durable: bool = False) -> None:
        parsed = make_url(url)
        sqlite = parsed.get_backend_name() == "sqlite"
        self._engine = create_engine(
            parsed.set(drivername="sqlite") if sqlite else parsed,
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=not sqlite,
            connect_args={"check_same_thread": False} if sqlite else {"connect_timeout": int(BUSY_TIMEOUT_S)},
        )
        if sqlite:
            event.listen(self._engine, "connect", _prepare_sqlite(durable))
            event.listen(self._engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._waiting: list[_Work] = []
        self._running: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Pieces of work that no transaction has taken up yet."""
        return len(self._waiting)

    def submit(self, kind: Kind[P, R], payload: P) -> "asyncio.Future[R]":
        """Write `payload` in a coming transaction. The future ends when that is committed, or raises LedgerUnavailable
        or what the handler raised; a handler that raises fails its own payload alone."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if self._closed:
            future.set_exception(LedgerUnavailable("the ledger is closed"))
            return future
        self._waiting.append(_Work(kind, payload, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="ledger commits")
        return future

    async def close(self) -> None:
        """Commit what has been submitted, then let the database go."""
        while self._running is not None:
            await asyncio.wait({self._running})
        self._closed = True
        self._thread.shutdown()
        self._engine.dispose()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                batch.sort(key=lambda work: work.kind.order)  # stable: within a kind the order of arrival stays
                try:
                    results = await loop.run_in_executor(self._thread, self._commit, batch)
                except DBAPIError as error:
                    log.warning("the ledger could not be written", exc_info=error)
                    results = [LedgerUnavailable("the ledger cannot be written", retry_after_s=1)] * len(batch)
                for work, result in zip(batch, results, strict=True):
                    if work.future.done():
                        continue
                    if isinstance(result, Exception):
                        work.future.set_exception(result)
                    else:
                        work.future.set_result(result)
        finally:
            self._running = None

    def _commit(self, batch: list[_Work]) -> list[Any]:
        """One result a piece of work; an exception as a result is that piece's own."""
        try:
            with self._engine.begin() as connection:
                results: list[Any] = []
                for kind, group in groupby(batch, key=lambda work: work.kind):
                    results += kind.handle(connection, [work.payload for work in group])
                return results
        except DBAPIError as error:
            if len(batch) == 1 or not isinstance(error, IntegrityError | DataError):
                raise
        except Exception as error:
            if len(batch) == 1:
                return [error]
        # One of them cannot be written: the transaction is gone, so each is tried by itself and only that one fails.
        return [result for work in batch for result in self._alone(work)]

    def _alone(self, work: _Work) -> list[Any]:
        try:
            return self._commit([work])
        except (IntegrityError, DataError) as error:
            return [error]


def _prepare_sqlite(durable: bool) -> Callable[[Any, Any], None]:
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        for pragma in (
            f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_S * 1000)}",
            f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}",
        ):
            connection.execute(pragma)

    return prepare
