"""Notices when the event loop stands still: how late it was, and while it stands, what keeps it.

A task measures how late the loop wakes it. A thread sees that the task does not come back and writes the loop's stack
to the log; it only reads what the loop last said, so it can never say in the loop's place that all is well.
"""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Final

log = logging.getLogger("pilothouse.loop")

EVERY_S: Final = 0.1
LATE_S: Final = 1.0  # a scheduler of a busy machine takes a few tenths; a second is something that holds the loop
WINDOW_S: Final = 300
BUCKETS: Final = 30
_FRAMES: Final = 12


class LoopWatch:
    """Watches the loop that runs `keep`. `told` hears of every measured lateness, in seconds."""

    def __init__(
        self, told: Callable[[float], None] = lambda _: None, *, every_s: float = EVERY_S, late_s: float = LATE_S
    ) -> None:
        self._told, self._every_s, self._late_s = told, every_s, late_s
        self._due = float("inf")
        self._worst: dict[int, float] = {}
        self._loop_thread = 0
        self._ended = threading.Event()

    @property
    def worst_ms(self) -> float:
        """How late the loop was at most in the last WINDOW_S."""
        oldest = _bucket(time.monotonic()) - BUCKETS
        return round(max((late for bucket, late in self._worst.items() if bucket > oldest), default=0.0) * 1e3, 1)

    async def keep(self) -> None:
        """For ever: measure, with the thread beside it."""
        self._loop_thread = threading.get_ident()
        thread = threading.Thread(target=self._stand_by, name="loop watch", daemon=True)
        thread.start()
        try:
            while True:
                self._due = time.monotonic() + self._every_s
                await asyncio.sleep(self._every_s)
                self._note(max(0.0, time.monotonic() - self._due))
        finally:
            self._ended.set()
            thread.join(1)

    def _note(self, late_s: float) -> None:
        bucket = _bucket(time.monotonic())
        if bucket not in self._worst:
            self._worst = {known: late for known, late in self._worst.items() if known > bucket - BUCKETS}
        self._worst[bucket] = max(self._worst.get(bucket, 0.0), late_s)
        if late_s >= self._late_s:
            log.warning("the event loop stood still", extra={"lateS": round(late_s, 3)})
        self._told(late_s)

    def _stand_by(self) -> None:
        """The thread: once for each time that the loop is overdue, write down where it is."""
        told = 0.0
        while not self._ended.wait(self._late_s / 4):
            due = self._due
            if time.monotonic() - due >= self._late_s and due != told:
                told = due
                log.warning("the event loop stands still", extra={"stack": self._stack()})

    def _stack(self) -> list[str]:
        """The loop's innermost frames, file, line and function; no values."""
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return []
        return [f"{found.filename}:{found.lineno} {found.name}" for found in traceback.extract_stack(frame, _FRAMES)]


def _bucket(now: float) -> int:
    return int(now) // (WINDOW_S // BUCKETS)
