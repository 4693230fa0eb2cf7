"""Group commit: what many requests want written goes into one transaction.

A caller waits for its commit and no longer. What gathers while the loop goes round once, or while one transaction is
on its way, shares the next one. Work of a kind is done in the order of its arrival. Every handler is such that doing
its work twice changes nothing, for a commit whose answer was lost is done again.

A commit that need not wait is made on the loop itself: SQLite's takes 50 us, telling a thread and hearing from it twice
that. Where it would wait, for another writer, the disk or a server, a thread does it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import groupby
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, Generic, TypeVar

from app.services.quota.link import Again, Away, Busy, Link, open_link, open_quick_link
from graphs.errors import UpstreamError

log = logging.getLogger("pilothouse.ledger")

MAX_BATCH: Final = 512
LINGER_S: Final = 0.005
TRIES: Final = 3
CHECKPOINT_EVERY: Final = 1_000  # transactions; SQLite folds its journal in after as many pages

P = TypeVar("P")
R = TypeVar("R")
Handler = Callable[[Link, Sequence[P]], Sequence[R]]


class LedgerUnavailable(UpstreamError):
    """The ledger's database does not answer. Nothing is called on credit: the request fails."""

    code = "ledger_unavailable"


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[P, R]):
    """A kind of work: how many payloads of it are written at once. Kinds of a lower `order` go first in a batch.

    One that may `linger` goes with the next transaction that something else asks for, or LINGER_S later.
    """

    name: str
    order: int
    handle: Handler[P, R]
    linger: bool = False


@dataclass(frozen=True, slots=True)
class _Work:
    kind: Kind[Any, Any]
    payload: Any
    future: "asyncio.Future[Any]"


class _Order(Enum):
    """What the thread can be told beside a batch."""

    CHECKPOINT = auto()
    END = auto()


_NOTHING: Final[Kind[None, None]] = Kind("nothing", 99, lambda _, payloads: [None] * len(payloads))


class Committer:
    """All writes of the ledger, one transaction at a time. `durable` waits for the disk at each commit.

    Used by one event loop, the one that submits first.
    """

    def __init__(self, url: str, *, durable: bool = False) -> None:
        self._link = open_link(url, durable=durable)
        self._quick = None if durable else open_quick_link(url)
        self._lingering: asyncio.TimerHandle | None = None
        self._waiting: list[_Work] = []
        self._thread_has_one = self._turn_comes = self._closed = False
        self._until_checkpoint = CHECKPOINT_EVERY
        self._queue: SimpleQueue[list[_Work] | _Order] = SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def waiting(self) -> int:
        """Pieces of work that no transaction has taken up yet."""
        return len(self._waiting)

    def submit(self, kind: Kind[P, R], payload: P) -> "asyncio.Future[R]":
        """Write `payload` in a coming transaction. The future ends when that is committed, or raises LedgerUnavailable
        or what the handler raised; a handler that raises fails its own payload alone."""
        loop = self._loop or self._start()
        future: asyncio.Future[R] = loop.create_future()
        if self._closed:
            future.set_exception(LedgerUnavailable("the ledger is closed"))
            return future
        self._waiting.append(_Work(kind, payload, future))
        if not kind.linger:
            self.hurry()
        elif self._lingering is None:
            self._lingering = loop.call_later(LINGER_S, self.hurry)
        return future

    def hurry(self) -> None:
        """Let what waits go with a transaction now."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self._waiting and not self._turn_comes and not self._thread_has_one and self._loop is not None:
            self._turn_comes = True
            self._loop.call_soon(self._take_turn)

    async def close(self) -> None:
        """Commit what has been submitted, then let the database go."""
        if self._ended is None or self._closed:
            self._closed = True
            return
        while self._waiting or self._thread_has_one:
            await asyncio.gather(
                self.submit(_NOTHING, None), return_exceptions=True
            )  # after what was submitted before it
        self._closed = True
        self._queue.put(_Order.END)
        await asyncio.shield(self._ended)
        if self._quick is not None:
            self._quick.close()

    def _start(self) -> asyncio.AbstractEventLoop:
        self._loop = loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        Thread(target=self._run, args=(loop,), name="ledger", daemon=True).start()
        return loop

    def _take_turn(self) -> None:
        """Commit what waits, here or in the thread."""
        self._turn_comes = False
        if not self._waiting:
            return
        batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
        batch.sort(key=lambda work: work.kind.order)  # stable: within a kind the order of arrival stays
        if (results := self._commit_quickly(batch)) is None:
            self._thread_has_one = True
            self._queue.put(batch)
        else:
            self._tell(batch, results)

    def _commit_quickly(self, batch: list[_Work]) -> list[Any] | None:
        """None if that was not possible: the thread then finds out why, or waits."""
        if self._quick is None:
            return None
        try:
            results = self._commit(self._quick, batch)
        except Exception as error:
            if not isinstance(error, Busy):
                log.debug("a commit goes to the thread", exc_info=error)
            return None
        self._until_checkpoint -= 1
        if not self._until_checkpoint:
            self._until_checkpoint = CHECKPOINT_EVERY
            self._queue.put(_Order.CHECKPOINT)
        return results

    def _tell(self, batch: list[_Work], results: list[Any]) -> None:
        for work, result in zip(batch, results, strict=True):
            if work.future.done():
                continue
            if isinstance(result, Exception):
                work.future.set_exception(result)
            else:
                work.future.set_result(result)
        self.hurry()

    # The thread

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends with the loop at the latest."""
        try:
            while (order := self._queue.get()) is not _Order.END:
                if isinstance(order, list):
                    loop.call_soon_threadsafe(self._hear, order, self._results(order))
                else:
                    self._checkpoint()
            self._link.close()
            loop.call_soon_threadsafe(self._end)
        except RuntimeError:  # the loop is closed: nobody waits any more
            self._link.close()

    def _hear(self, batch: list[_Work], results: list[Any]) -> None:
        self._thread_has_one = False
        self._tell(batch, results)

    def _end(self) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    def _checkpoint(self) -> None:
        try:
            self._link.checkpoint()
        except Away as error:
            log.warning("the ledger's journal could not be folded in; trying again later", exc_info=error)

    def _results(self, batch: list[_Work]) -> list[Any]:
        """One a piece of work; an exception is that piece's own."""
        try:
            return self._commit(self._link, batch)
        except Away as error:
            log.warning("the ledger could not be written", exc_info=error)
            return [LedgerUnavailable("the ledger cannot be written", retry_after_s=1) for _ in batch]
        except Exception as error:
            if len(batch) == 1:
                log.exception("a piece of the ledger's work failed")
                return [error]
        # One of them cannot be done: the transaction is gone, so each is tried by itself and only that one fails.
        return [result for work in batch for result in self._results([work])]

    def _commit(self, link: Link, batch: list[_Work]) -> list[Any]:
        tries = 1
        while True:
            try:
                with link.transaction():
                    results: list[Any] = []
                    for kind, group in groupby(batch, key=lambda work: work.kind):
                        results += kind.handle(link, [work.payload for work in group])
                    return results
            except Again:
                if tries == TRIES:
                    raise
                tries += 1
