"""Group commit: what many requests want written goes into one transaction of one thread.

A caller waits for its commit and no longer. While one transaction is on its way the next one gathers, so a commit's
cost is shared by all requests that are in flight. Work of a kind is done in the order of its arrival. Every handler is
such that doing its work twice changes nothing, for a commit whose answer was lost is done again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, TypeVar

from app.services.quota.link import Again, Away, Link, open_link
from graphs.errors import UpstreamError

log = logging.getLogger("pilothouse.ledger")

MAX_BATCH: Final = 512
TRIES: Final = 3

P = TypeVar("P")
R = TypeVar("R")
Handler = Callable[[Link, Sequence[P]], Sequence[R]]


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
    future: "asyncio.Future[Any]"


class Committer:
    """One connection and one thread for all writes of the ledger. `durable` waits for the disk at each commit.

    Used by one event loop, the one that submits first.
    """

    def __init__(self, url: str, *, durable: bool = False) -> None:
        self._link = open_link(url, durable=durable)
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """Pieces of work that no transaction has taken up yet."""
        return self._queue.qsize()

    def submit(self, kind: Kind[P, R], payload: P) -> "asyncio.Future[R]":
        """Write `payload` in a coming transaction. The future ends when that is committed, or raises LedgerUnavailable
        or what the handler raised; a handler that raises fails its own payload alone."""
        loop = self._loop
        if loop is None:
            loop = self._start()
        future: asyncio.Future[R] = loop.create_future()
        if self._closed:
            future.set_exception(LedgerUnavailable("the ledger is closed"))
            return future
        self._queue.put(_Work(kind, payload, future))
        return future

    async def close(self) -> None:
        """Commit what has been submitted, then let the database go."""
        self._closed = True
        if self._ended is not None:
            self._queue.put(None)
            await asyncio.shield(self._ended)

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        Thread(target=self._run, args=(loop,), name="ledger", daemon=True).start()
        return loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """The thread. Ends with the loop at the latest."""
        try:
            while (first := self._queue.get()) is not None:
                batch, more = self._gather(first)
                loop.call_soon_threadsafe(_tell, batch, self._results(batch))
                if not more:
                    break
        except RuntimeError:  # the loop is closed: nobody waits any more
            return
        finally:
            self._link.close()
        loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _gather(self, first: _Work) -> tuple[list[_Work], bool]:
        """What waits, kinds in their order; False if the end has come."""
        batch, more = [first], True
        for _ in range(min(self._queue.qsize(), MAX_BATCH - 1)):
            work = self._queue.get()
            if work is None:
                more = False
                break
            batch.append(work)
        batch.sort(key=lambda work: work.kind.order)  # stable: within a kind the order of arrival stays
        return batch, more

    def _results(self, batch: list[_Work]) -> list[Any]:
        """One a piece of work; an exception is that piece's own."""
        try:
            return self._commit(batch)
        except Away as error:
            log.warning("the ledger could not be written", exc_info=error)
            return [LedgerUnavailable("the ledger cannot be written", retry_after_s=1) for _ in batch]
        except Exception as error:
            if len(batch) == 1:
                log.exception("a piece of the ledger's work failed")
                return [error]
        # One of them cannot be done: the transaction is gone, so each is tried by itself and only that one fails.
        return [result for work in batch for result in self._results([work])]

    def _commit(self, batch: list[_Work]) -> list[Any]:
        tries = 1
        while True:
            try:
                with self._link.transaction():
                    results: list[Any] = []
                    for kind, group in groupby(batch, key=lambda work: work.kind):
                        results += kind.handle(self._link, [work.payload for work in group])
                    return results
            except Again:
                if tries == TRIES:
                    raise
                tries += 1


def _tell(batch: list[_Work], results: list[Any]) -> None:
    for work, result in zip(batch, results, strict=True):
        if work.future.done():
            continue
        if isinstance(result, Exception):
            work.future.set_exception(result)
        else:
            work.future.set_result(result)
