"""Reads and commits of LanceDB, with what it raises turned into errors of ours."""

import asyncio
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

from graphs.errors import UpstreamError

COMMIT_TRIES = 8
# LanceDB tells by its message alone which part of it failed.
_STORE = re.compile(r'Generic S3 error|store: "S3"')
_ANSWERED = re.compile(r"404 Not Found|416 Range Not Satisfiable")
# The second is what it says of a merge that met such conflicts for 30 s. Writers take turns, but not with who tidies:
# where a write takes 15 s, in a bucket far away, two of those in its way are enough.
_CAME_BETWEEN = re.compile(r"commit conflict|too many concurrent writers", re.IGNORECASE)


class IndexFailed(UpstreamError):
    """The index could not be read or written."""

    code = "index_failed"


class IndexDamaged(IndexFailed):
    """A collection's files are broken; other collections are not touched by it."""

    code = "index_damaged"


class IndexAway(IndexFailed):
    """The object store that holds the index does not answer; nothing is known of the index."""

    code = "index_away"


def failed(error: Exception, said: IndexFailed) -> IndexFailed:
    """`said`, unless it was the store that did not answer. An object that is absent or cut short is an answer."""
    text = str(error)
    if _STORE.search(text) and not _ANSWERED.search(text):
        return IndexAway("the object store of the index does not answer")
    return said


async def guarded(work: Awaitable[Any]) -> Any:
    """LanceDB raises plain RuntimeError, ValueError and OSError for what its files or its store did to it."""
    try:
        return await work
    except (RuntimeError, ValueError, OSError) as error:
        raise failed(error, IndexFailed("the index could not be read or written")) from error


async def committed(commit: Callable[[], Awaitable[Any]]) -> Any:
    """Commit, and again when another process's commit came between. Raises IndexFailed."""
    for attempt in range(COMMIT_TRIES):
        try:
            return await commit()
        except (RuntimeError, ValueError, OSError) as error:
            if not _CAME_BETWEEN.search(str(error)) or attempt == COMMIT_TRIES - 1:
                raise failed(error, IndexFailed("the index could not be written")) from error
        await asyncio.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)  # noqa: S311 (jitter, no secret)
    raise AssertionError("unreachable")
