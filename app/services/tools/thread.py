"""Runs what blocks in a thread of its own, for which nobody has to wait: not the caller, not the end of the process.

A thread cannot be stopped. One that hangs keeps its place, so that a tool has at most as many as it has places, and the
threads that the rest of the process shares stay free.
"""

import asyncio
import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """At most `places` at once."""

    def __init__(self, name: str, places: int) -> None:
        self._name = name
        self._free = asyncio.Semaphore(places)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives or raises. Cancelled, it goes on, and its result is thrown away."""
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()
        context = copy_context()

        def end(result: T | None, error: BaseException | None) -> None:
            self._free.release()
            if done.done():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(result)  # type: ignore[arg-type]

        def labour() -> None:
            result, failure = None, None
            try:
                result = context.run(work)
            except BaseException as error:  # whatever it is, its caller is to have it
                failure = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(end, result, failure)

        threading.Thread(target=labour, name=self._name, daemon=True).start()
        return await done
