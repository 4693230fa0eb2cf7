"""What all runs of the process share of one tool: how many calls at once, and whether it is left alone for a while."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from app.services.breaker import Breaker, BreakerPolicy
from graphs.errors import Kind, PilothouseError, ToolRefused, ToolRetry

# Tools are called seldom and may take half a minute to time out: a window as short as the models' would see one call.
POLICY: Final = BreakerPolicy(window_s=300.0, min_calls=4, failure_rate=0.5, open_s=15.0, max_open_s=300.0)
_ITS_OWN: Final[frozenset[Kind]] = frozenset({"upstream", "exhausted", "internal"})


class Lane:
    """`now` is monotonic seconds."""

    def __init__(self, name: str, places: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self.breaker = Breaker(POLICY)
        self._name, self._now = name, now
        self._places = asyncio.Semaphore(places)

    @asynccontextmanager
    async def place(self, wait_s: float) -> AsyncIterator[None]:
        """One of the tool's places. Raises ToolRefused where none comes free in time."""
        try:
            async with asyncio.timeout(wait_s):
                await self._places.acquire()
        except TimeoutError as error:
            raise ToolRefused(f"{self._name} is busy: nothing was called within {wait_s:g} s") from error
        try:
            yield
        finally:
            self._places.release()

    def admit(self) -> int:
        """A ticket for one call. Raises ToolRefused while the tool is left alone."""
        ticket = self.breaker.admit(self._now())
        if ticket is None:
            wait_s = self.breaker.wait_s(self._now())
            raise ToolRefused(f"{self._name} has failed too often and is left alone for {wait_s:.0f} s")
        return ticket

    @contextmanager
    def judged(self, ticket: int) -> Iterator[None]:
        """A call that reaches the tool: what it raises says how the tool is. An answer is one, be it a refusal."""
        began = self._now()
        try:
            yield
        except Exception as error:
            # Whatever it is goes on to the caller; here it only counts.
            if isinstance(error, ToolRetry | ToolRefused):
                failed = False
            else:
                failed = not isinstance(error, PilothouseError) or error.kind in _ITS_OWN
            if failed:
                self.breaker.fail(ticket, self._now())
            else:
                self.breaker.succeed(ticket, self._now(), self._now() - began)
            raise
        except BaseException:
            self.breaker.abandon(ticket)
            raise
        self.breaker.succeed(ticket, self._now(), self._now() - began)
