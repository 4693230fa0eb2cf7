"""Turns between the processes of one machine, by file locks: the kernel gives a killed holder's turn to the next.

An index on an object store has no folder to lock; turns are then kept within this process alone, and rebuilding there
while another process writes is not ordered.
"""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from weakref import WeakValueDictionary

POLL_S = 0.01


class Taken(Exception):
    """Somebody else has the turn, and the caller does not want to wait."""


class Locks:
    """Named exclusive turns."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._here: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, name: str, *, wait: bool = True) -> AsyncIterator[None]:
        """Hold it for the block. Without `wait` raises Taken where it is held by anyone."""
        lock = self._here.setdefault(name, asyncio.Lock())
        if lock.locked() and not wait:
            raise Taken(name)
        async with lock:
            file = None if self._folder is None else await _locked(self._folder / name, wait=wait)
            try:
                yield
            finally:
                if file is not None:
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
