"""What a log may tell of an exception: where it came from, and its words without the values in them.

Libraries put into their messages what they were given: pydantic the input it refused, HTTP clients whole URLs, JSON and
number parsers the text. Our own errors name only what the caller may know (`graphs.errors`) and are told as they are.
"""

import re
import traceback
from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from app.telemetry.redact import redact
from graphs.errors import PilothouseError

MAX_CHAIN: Final = 10
MAX_FAULTS: Final = 5
# What quotes, and what follows a colon at the end, as in "invalid literal for int() with base 10: '...'".
_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
_URL: Final = re.compile(r"\b([a-z][a-z0-9+.-]*://)(?:[^/@\s]*@)?([^\s/?#]*)\S*", re.IGNORECASE)


def told(error: BaseException) -> str:
    """Its message, as far as it is ours or says nothing of what was given."""
    if isinstance(error, PilothouseError):
        return redact(error.message)
    if isinstance(error, ValidationError):
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        places = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['type']}" for fault in faults]
        return f"{error.title}: {'; '.join(places[:MAX_FAULTS])}"
    if isinstance(error, OSError) and error.strerror:
        return f"[Errno {error.errno}] {error.strerror}"
    return redact(_QUOTED.sub("'…'", _URL.sub(r"\1\2", str(error))))


def trace(error: BaseException) -> str:
    """As Python prints it, causes first, with `told` in place of each message."""
    return "".join(_chain(error, set())).rstrip("\n")


def _chain(error: BaseException, seen: set[int]) -> Iterator[str]:
    if id(error) in seen or len(seen) >= MAX_CHAIN:
        return
    seen.add(id(error))
    if error.__cause__ is not None:
        yield from _chain(error.__cause__, seen)
        yield "\nThe above exception was the direct cause of the following exception:\n\n"
    elif error.__context__ is not None and not error.__suppress_context__:
        yield from _chain(error.__context__, seen)
        yield "\nDuring handling of the above exception, another exception occurred:\n\n"
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_tb(error.__traceback__)
    kind = type(error)
    name = (
        kind.__qualname__ if kind.__module__ in ("builtins", "__main__") else f"{kind.__module__}.{kind.__qualname__}"
    )
    yield f"{name}: {told(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _chain(each, seen)
