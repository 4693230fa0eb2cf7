"""What everybody who uses Redis here has to know: when it is away, and how a loop beside it ends."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from redis.exceptions import RedisError

log = logging.getLogger("pilothouse.redis")

AWAY_S: Final = 1.0  # how long a Redis that failed is left alone
MISSES: Final = (RedisError, OSError, TimeoutError)
"""What its client raises when it is away or slow."""


class Absence:
    """Remembers for a moment that Redis did not answer, so that no call waits for it again at once.

    `told` is what the log says of it; `monotonic` is seconds.
    """

    def __init__(self, told: str, monotonic: Callable[[], float]) -> None:
        self._told, self._monotonic, self._until = told, monotonic, 0.0

    @property
    def lasts(self) -> bool:
        """Whether Redis is not to be asked now."""
        return self._monotonic() < self._until

    def note(self, error: Exception) -> None:
        self._until = self._monotonic() + AWAY_S
        log.warning("%s: Redis does not answer", self._told, exc_info=error)


def cancelled() -> bool:
    """Whether this task was cancelled. A loop that asks Redis must look: asyncio.wait_for of Python 3.11, inside the
    client, can swallow a cancellation."""
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling() > 0
