"""The events of a run in flight: written once, read by any number of readers, none of whom can slow the run.

Bounded by the run itself, whose answer length and steps are limited; dropped when the run has been stored.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final

from app.records import AnswerCard, RunEvent

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
    ) -> None:
        self.run_id, self.tenant_id, self.user_id = run_id, tenant_id, user_id
        self.card: AnswerCard | None = None
        """How the run ended, once that is stored."""
        self.from_the_start = first_number == 1
        self.events: list[RunEvent] = []
        self.readers = 0
        self.attached = asyncio.Event()
        self.unread = asyncio.Event()
        self.unread.set()
        self._next, self._tell = first_number, tell
        self._changed = asyncio.Event()
        self._closed = False

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
        self._closed = True
        self._wake()

    async def read(self, after: int = 0) -> AsyncGenerator[RunEvent, None]:
        """Events numbered above `after`, as they come, until the run closes."""
        self.readers += 1
        self.attached.set()
        self.unread.clear()
        seen = 0
        try:
            while True:
                changed = self._changed
                while seen < len(self.events):
                    event = self.events[seen]
                    seen += 1
                    if event.number > after:
                        yield event
                if self._closed:
                    return
                await changed.wait()
        finally:
            self.readers -= 1
            if not self.readers:
                self.attached.clear()
                self.unread.set()

    def _wake(self) -> None:
        # Each wait gets an event of its own, so that a reader can neither miss a change nor keep others awake.
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
