"""A loop beside the caller's thread, for libraries that call models without one."""

import asyncio
import queue
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import aclosing
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")


class Aside:
    """Runs coroutines on `home`, or on a loop of its own where there is none. Called from a thread without a loop."""

    def __init__(self, home: asyncio.AbstractEventLoop | None) -> None:
        self._home = home

    def run(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of `call()`. Raises RuntimeError inside a running loop, which it would stop for ever."""
        loop = self._loop()
        return asyncio.run_coroutine_threadsafe(call(), loop).result()

    def iterate(self, items: Callable[[], AsyncGenerator[T, None]]) -> Iterator[T]:
        """The items as they come. Leaving early closes their generator."""
        loop = self._loop()
        pipe: queue.SimpleQueue[tuple[T] | BaseException | None] = queue.SimpleQueue()

        async def pump() -> None:  # in one task: a generator's timeouts hold in the task that entered them
            ended: BaseException | None = None
            try:
                async with aclosing(items()) as source:
                    async for item in source:
                        pipe.put((item,))
            except BaseException as error:
                ended = error
                if not isinstance(error, Exception):
                    raise
            finally:
                pipe.put(ended)

        pumping = asyncio.run_coroutine_threadsafe(pump(), loop)
        try:
            while isinstance(told := pipe.get(), tuple):
                yield told[0]
            if told is not None:
                raise told
        finally:
            pumping.cancel()

    def _loop(self) -> asyncio.AbstractEventLoop:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._home if self._home is not None and self._home.is_running() else _beside()
        raise RuntimeError("a synchronous call inside a running loop: await the asynchronous one (ainvoke, astream)")


@cache
def _beside() -> asyncio.AbstractEventLoop:
    """One for the process: what a gateway opens belongs to the loop that first called it."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="gateway-aside", daemon=True).start()
    return loop
