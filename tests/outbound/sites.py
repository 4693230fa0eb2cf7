"""A server of `servers.py` on a loop of its own, for tests that have none."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.outbound.servers import Answer, Server, serving

Site = Server


@contextmanager
def site(answers: Answer) -> Iterator[Site]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    up = serving(answers)
    try:
        yield asyncio.run_coroutine_threadsafe(up.__aenter__(), loop).result(10)
        asyncio.run_coroutine_threadsafe(up.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
