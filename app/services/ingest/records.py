"""JSON and JSON lines as readable text: a line for each value, led by its path. Runs in the child process."""

import json
from collections.abc import Iterator
from typing import Any

from app.services.ingest.detect import MEDIA_TYPES, decode
from app.services.ingest.document import Builder, ParsedDocument, Place
from graphs.errors import DocumentUnreadable


def parse_json(data: bytes) -> ParsedDocument:
    """A block for each item of a list, or for each member of an object under its name."""
    value = _loaded(decode(data), "the JSON is broken")
    builder = Builder("")
    if isinstance(value, dict):
        for name, member in value.items():
            builder.heading(1, name, shown=False)
            builder.block("\n".join(_lines(member, name)), whole=True)
    else:
        for number, item in enumerate(value if isinstance(value, list) else [value], 1):
            builder.block("\n".join(_lines(item)), whole=True, place=Place(row=number))
    return builder.build("", MEDIA_TYPES["json"])


def parse_jsonl(data: bytes) -> ParsedDocument:
    """A block for each line; one that is no JSON is noted and leaves the others alone."""
    builder, notes = Builder(""), list[str]()
    for number, line in enumerate(decode(data).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = _loaded(line, f"line {number} is no JSON")
        except DocumentUnreadable as error:
            notes.append(error.message)
        else:
            builder.block("\n".join(_lines(value)), whole=True, place=Place(row=number))
    if builder.empty and notes:
        raise DocumentUnreadable(f"no line of the file can be read: {notes[0]}", field="file")
    return builder.build("", MEDIA_TYPES["jsonl"], tuple(notes))


def _loaded(text: str, broken: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DocumentUnreadable(f"{broken}: it is nested too deeply", field="file") from error
    except ValueError as error:
        raise DocumentUnreadable(f"{broken} ({error})", field="file") from error


def _lines(value: Any, path: str = "") -> Iterator[str]:
    """`path: value` for every leaf, in order; text of several lines stays one line."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from _lines(member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _lines(item, f"{path}[{number}]")
    else:
        shown = " ".join(value.split()) if isinstance(value, str) else json.dumps(value)
        yield f"{path}: {shown}" if path else shown
