"""The life of a process in the ledger: a name under which it holds credit, and signs that it is still there.

Others count a process as dead that has given no sign for DEAD_AFTER_S while they were watching. They watch a number
move, by a clock that nobody sets: no wall clock that jumps makes a living process look dead.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from app.ids import new_id
from app.services.quota import book
from app.services.quota.book import Beat, Death
from app.services.quota.committer import Committer, Kind

log = logging.getLogger("pilothouse.ledger")

BEAT_S: Final = 2.0
DEAD_AFTER_S: Final = 15.0
SURE_FOR_S: Final = DEAD_AFTER_S / 2  # so long after a sign nobody can have taken its sender for dead

_BEAT: Final[Kind[Beat, dict[str, int] | None]] = Kind("beat", 3, book.beat)
_BURY: Final[Kind[Death, int | None]] = Kind("bury", 4, book.bury)


def elapsed_s() -> float:
    """Seconds that nobody sets. Where the system tells, they pass while the machine sleeps: others may be awake."""
    boot_time: int | None = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boot_time is None else time.clock_gettime(boot_time)


class Life:
    """`reborn` is called when this process was taken for dead: its credit is gone, it goes on under a new name."""

    def __init__(self, committer: Committer, monotonic: Callable[[], float], reborn: Callable[[], None]) -> None:
        self._committer, self._monotonic, self._reborn = committer, monotonic, reborn
        self.process_id = new_id()
        self._number = 0
        self._sure_until = self._watched_until = float("-inf")
        self._beats: dict[str, tuple[int, float]] = {}
        self._signing = asyncio.Lock()

    @property
    def is_sure(self) -> bool:
        """Whether nobody can have taken this process for dead."""
        return self._monotonic() < self._sure_until

    async def ensure(self) -> None:
        """Give a sign unless one was given just now. Raises LedgerUnavailable."""
        async with self._signing:
            if not self.is_sure:
                await self._sign()

    async def sign(self) -> Mapping[str, int]:
        """Give a sign of life; the last signs of all processes. Raises LedgerUnavailable."""
        async with self._signing:
            return await self._sign()

    async def _sign(self) -> Mapping[str, int]:
        while True:
            at = self._monotonic()  # others may count from the commit, which is not before
            beats = await self._committer.submit(_BEAT, Beat(self.process_id, self._number + 1))
            if beats is not None:
                self._number += 1
                self._sure_until = at + SURE_FOR_S
                return beats
            log.warning("this process was taken for dead; its credit is gone")
            self.process_id, self._number = new_id(), 0
            self._reborn()

    async def watch(self, beats: Mapping[str, int]) -> None:
        """Take over from processes that have given no sign for too long. Raises LedgerUnavailable."""
        for death in self._dead(beats):
            abandoned = await self._committer.submit(_BURY, death)
            if abandoned is not None:
                log.warning(
                    "took over from a dead process", extra={"deadProcess": death.process_id, "calls": abandoned}
                )

    def _dead(self, beats: Mapping[str, int]) -> Sequence[Death]:
        now = self._monotonic()
        # Who was not watching, because it slept or the database was away, has not seen that nobody moved.
        blind, self._watched_until = now > self._watched_until, now + SURE_FOR_S
        seen = {} if blind else self._beats
        self._beats = {
            process: seen[process] if process in seen and seen[process][0] == number else (number, now)
            for process, number in beats.items()
        }
        return [
            Death(process, number)
            for process, (number, since) in self._beats.items()
            if process != self.process_id and now - since >= DEAD_AFTER_S
        ]

    async def end(self) -> None:
        """Let everything go at once. Raises LedgerUnavailable."""
        async with self._signing:
            if self._number:
                await self._committer.submit(_BURY, Death(self.process_id))
                self._number, self._sure_until = 0, float("-inf")
