"""The events of a run in flight: written once, read by any number of readers, none of whom can slow the run.

Bounded by the run itself, whose answer length and steps are limited; dropped when the run has been stored.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from app.records import AnswerCard, RunEvent
from graphs.context import Withheld

# After one of these, a stream ends. A run that waits for an approval goes on in a later stream.
LAST_EVENTS: Final = frozenset({"run.completed", "run.failed", "approval.required"})


class LiveRun:
    """An append-only log with waiting readers. `tell` hears of each event but the last, which the store has first."""

    def __init__(
        self,
        run_id: str,
        *,
        tenant_id: str = "",
        user_id: str = "",
        first_number: int = 1,
        tell: Callable[[str, RunEvent], None] | None = None,
        withheld: Withheld | None = None,
    ) -> None:
        self.run_id, self.tenant_id, self.user_id = run_id, tenant_id, user_id
        self.card: AnswerCard | None = None
        """How the run ended, once that is stored."""
        self.withheld = withheld
        """What its owner alone reads in the place of placeholders."""
        self.from_the_start = first_number == 1
        self.events: list[RunEvent] = []
        self.readers = 0
        self.unread_since = time.monotonic()
        """When a reader left last; before the first, when there could be one."""
        self._next, self._tell = first_number, tell
        self._changed: asyncio.Event | None = None
        self._closed = asyncio.Event()

    def emit(self, type_: str, data: Mapping[str, Any]) -> RunEvent:
        event = RunEvent(self._next, type_, data)
        self._next += 1
        self.events.append(event)
        if self._tell is not None and type_ not in LAST_EVENTS:
            self._tell(self.run_id, event)
        self._wake()
        return event

    @property
    def next_number(self) -> int:
        return self._next

    def close(self) -> None:
        self._closed.set()
        self._wake()

    async def read(self, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """Events numbered above `after`, as they come, until the run closes."""
        seen = 0
        with self._reading():
            while True:
                while seen < len(self.events):
                    event = self.events[seen]
                    seen += 1
                    if event.number > after:
                        yield event
                if self._closed.is_set():
                    return
                if self._changed is None:
                    self._changed = asyncio.Event()
                await self._changed.wait()

    async def attend(self) -> None:
        """Be a reader until the run closes, without looking at its events."""
        with self._reading():
            await self._closed.wait()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        self.readers += 1
        try:
            yield
        finally:
            self.readers -= 1
            self.unread_since = time.monotonic()

    def _wake(self) -> None:
        # Each wait gets an event of its own, so that a reader can neither miss a change nor keep others awake.
        if self._changed is not None:
            changed, self._changed = self._changed, None
            changed.set()
