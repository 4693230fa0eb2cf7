"""Says of a home that processes are at work in it, so that nothing is put in its place meanwhile.

Each process holds a shared lock on a file there; the system lets go of it when the process ends, however it ends.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_FILE: Final = ".at-work"


@contextmanager
def at_work(home: Path) -> Iterator[None]:
    """Be one of those processes until the block ends."""
    file = os.open(home / _FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield
    finally:
        os.close(file)


def is_at_rest(home: Path) -> bool:
    """Whether no process is at work there."""
    try:
        file = os.open(home / _FILE, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(file)
