"""Turns between all processes that write an index: where it lies in a folder, those of one machine, by file locks.

The kernel gives a killed holder's turn to the next. For an index in a bucket see `bucket_turns`.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol
from weakref import WeakValueDictionary

POLL_S = 0.01


class Taken(Exception):
    """Somebody else has the turn, and the caller does not want to wait."""


class Turns(Protocol):
    """Exclusive turns between processes, by name."""

    def hold(self, name: str, *, wait: bool) -> AbstractAsyncContextManager[None]:
        """Without `wait` raises Taken where it is held by anyone."""
        ...


class Locks:
    """Named exclusive turns: of this process's tasks first, then of all processes."""

    def __init__(self, between: Path | Turns) -> None:
        """`between` orders the processes; a folder does so by files in it."""
        self._between: Turns = FileTurns(between) if isinstance(between, Path) else between
        self._here: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, name: str, *, wait: bool = True) -> AsyncIterator[None]:
        """Hold it for the block. Without `wait` raises Taken where it is held by anyone."""
        lock = self._here.setdefault(name, asyncio.Lock())
        if lock.locked() and not wait:
            raise Taken(name)
        async with lock, self._between.hold(name, wait=wait):
            yield


class FileTurns:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @asynccontextmanager
    async def hold(self, name: str, *, wait: bool) -> AsyncIterator[None]:
        file = await _locked(self._folder / name, wait=wait)
        try:
            yield
        finally:
            os.close(file)


async def _locked(path: Path, *, wait: bool) -> int:
    """An open, locked file. Files stay: removing one would let two holders lock two files of one name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise Taken(path.name) from None
            else:
                return file
            await asyncio.sleep(POLL_S)
    except BaseException:
        os.close(file)
        raise
