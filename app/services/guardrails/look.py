"""One look of a detector: it has its time, and whatever happens to it becomes a value that policy can rule on."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal, TypeVar

log = logging.getLogger("pilothouse.guardrails")

T = TypeVar("T")
Look = Callable[[], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a detector has said nothing."""

    how: Literal["failed", "timed_out"]


async def looked(name: str, timeout_s: float, look: Look[T]) -> T | Failed:
    """What it found. A look in a thread goes on to its end when its time is over, and nobody waits for it."""
    try:
        async with asyncio.timeout(timeout_s):
            return await look()
    except TimeoutError:
        how: Literal["failed", "timed_out"] = "timed_out"
        log.warning("a detector was too slow", extra={"detector": name, "timeout_s": timeout_s})
    except Exception as error:  # of any model's runtime: what a failed detector leads to is the tenant's policy
        how = "failed"
        # Its message may quote the text that it was looking at.
        log.warning("a detector failed", extra={"detector": name, "cause": type(error).__name__})
    return Failed(how)
