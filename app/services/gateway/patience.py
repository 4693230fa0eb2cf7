"""How long a call waits for its first token, for the next one, and for the whole answer, whatever the provider does."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from app.config.schema import RouteConfig
from graphs.errors import UpstreamTimeout

T = TypeVar("T")


class Patience:
    """The deadlines of one call, kept by one timer: an asyncio.timeout for each token costs ten times as much."""

    def __init__(self, name: str, config: RouteConfig) -> None:
        self._name, self._between_s = name, config.between_tokens_timeout_s
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._whole = now + config.timeout_s
        self._until = min(self._whole, now + (config.first_token_timeout_s or config.timeout_s))
        self._task: asyncio.Task[object] | None = None
        self._cancels, self._heard, self._rang = 0, False, False
        self._timer: asyncio.TimerHandle | None = None

    async def kept(self, items: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """The same items; raises UpstreamTimeout for one that comes too late. Closes `items`."""
        try:
            async with aclosing(items):
                while True:
                    self._wait()
                    try:
                        item = await anext(items)
                    except StopAsyncIteration:
                        return
                    except asyncio.CancelledError as error:
                        self._explain(error)
                        raise
                    finally:
                        self._task = None
                    yield item
                    self._heard = True
                    self._until = min(self._whole, self._loop.time() + self._between_s)
        finally:
            self._disarm()

    def _wait(self) -> None:
        # The task may be another one for each item: a race hears the first in a task of its own.
        self._task = task = asyncio.current_task()
        assert task is not None
        self._cancels = task.cancelling()
        if self._timer is None or self._timer.when() > self._until:
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._timer = self._loop.call_at(self._until, self._ring)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        """The deadline that the timer was set for is over; most often a token has put it off since."""
        self._timer = None
        if self._task is None:
            return  # the caller is busy with an item; its next wait sets the timer
        if self._loop.time() < self._until:
            self._arm()
        else:
            self._rang = True
            self._task.cancel()

    def _explain(self, error: asyncio.CancelledError) -> None:
        """Raises UpstreamTimeout if the cancellation is ours alone."""
        task = asyncio.current_task()
        if not self._rang or task is None or task.uncancel() > self._cancels:
            return
        waited = "the next token" if self._heard else "the first token"
        if self._until >= self._whole:
            waited = "the whole answer"
        raise UpstreamTimeout(f"{self._name} took too long for {waited}") from error
