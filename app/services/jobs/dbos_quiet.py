"""What of DBOS has to be kept in its place: values that are code, and a log that repeats itself.

DBOS unpickles whatever row says that it is pickled, whichever serializer was chosen (HARDENING D06). Nothing of ours is
written so; with `refuse_pickle` whoever can write a job's row cannot have this process run it.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Final, NoReturn

REPEATED_AFTER_S: Final = 30.0
MAX_LOG_CHARS: Final = 500


class PickleRefused(Exception):
    """A row of the jobs' database claims to be pickled."""


def refuse_pickle() -> None:
    """For this process. `import dbos` takes a second, which is why this is not done at import."""
    from dbos import _serialization

    _serialization.DefaultSerializer.serialize = _refuse  # type: ignore[method-assign,assignment]
    _serialization.DefaultSerializer.deserialize = _refuse  # type: ignore[method-assign,assignment]


def _refuse(*_: Any) -> NoReturn:
    raise PickleRefused("jobs are kept as JSON; a pickled value is not read")


class SeldomFilter(logging.Filter):
    """Lets a line of a log through once in a while, however often it is said: 138 of them came in the six seconds that
    a database was away. Lines are cut, because those about values quote them."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place, now = (record.pathname, record.lineno), self._monotonic()
        if now - self._said.get(place, -REPEATED_AFTER_S) < REPEATED_AFTER_S:
            return False
        self._said[place] = now
        record.msg, record.args = record.getMessage()[:MAX_LOG_CHARS], None
        return True


def calm_log() -> None:
    """Have what DBOS logs come out where ours does, warnings and worse, each seldom."""
    logger = logging.getLogger("dbos")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)
    if not any(isinstance(each, SeldomFilter) for each in logger.filters):
        logger.addFilter(SeldomFilter())
