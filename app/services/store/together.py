"""SQLite's transactions that come together, committed together, in one step of a thread of their own.

A transaction through aiosqlite takes some twenty messages to its thread; work handed over whole takes one, and what
gathers meanwhile shares the next commit. Work is a function of a connection and may be run a second time: if one of a
batch fails, all are rolled back and each is tried by itself, so that only that one fails. The connection is kept:
taking one from a pool and giving it back costs as much as a run's statements.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

R = TypeVar("R")
Work = Callable[[Connection], R]

MAX_BATCH: Final = 64  # a longer transaction would keep other writers waiting


class Together:
    """`engine` begins with BEGIN IMMEDIATE; `turn` is the lock on which the writers of this process queue."""

    def __init__(self, engine: Engine, turn: asyncio.Lock) -> None:
        self._engine, self._turn = engine, turn
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._connection: Connection | None = None
        self._waiting: list[tuple[Work[Any], asyncio.Future[Any]]] = []
        self._running: asyncio.Task[None] | None = None

    def commit(self, work: Work[R]) -> "asyncio.Future[R]":
        """Done when it is committed; raises what the work or the database raised, with nothing of it kept."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((work, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="store commits")
        return future

    async def close(self) -> None:
        """Commit what has been handed over, then let the file go."""
        while self._running is not None:
            await asyncio.wait({self._running})
        self._thread.shutdown()
        self._let_go()
        self._engine.dispose()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                async with self._turn:
                    batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                    works = [work for work, _ in batch]
                    results = await loop.run_in_executor(self._thread, self._commit, works)
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._running = None

    def _commit(self, works: list[Work[Any]]) -> list[Any]:
        """One result a work; an exception as a result is that work's own."""
        try:
            connection = self._connection = self._connection or self._engine.connect()
            with connection.begin():
                return [work(connection) for work in works]
        except Exception as error:
            if isinstance(error, DBAPIError):  # the connection itself may be what failed
                self._let_go()
            # Whatever a work or the database raised belongs to whoever handed the work over.
            if len(works) == 1:
                return [error]
        return [result for work in works for result in self._commit([work])]

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
