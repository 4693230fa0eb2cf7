"""Text cut into lines and pieces, so that a template can show code, headings and the quote that was cited.

Of Markdown only the signs of headings and code are taken as such, and hidden; the rest is shown as it was written.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_HEADING: Final = re.compile(r"#{1,6}\s+")
_ITEM: Final = re.compile(r"(?:[-*]|\d+\.)\s")
_CODE: Final = re.compile(r"(`)([^`\n]+)(`)")


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    code: bool
    marked: bool


@dataclass(frozen=True, slots=True)
class Line:
    """`kind` is heading, code, item or text."""

    kind: str
    pieces: Sequence[Piece]


def lines(text: str, start: int = 0, end: int = 0) -> list[Line]:
    """The lines of `text`; its characters from `start` to `end` (exclusive) are in the marked pieces."""
    found: list[Line] = []
    position, fenced = 0, False
    for raw in text.split("\n"):
        fence = raw.lstrip().startswith("```")
        kind = "code" if fenced or fence else _kind(raw)
        fenced = fenced != fence
        if not fence or raw.strip(" `"):  # what names a language stays, as it may be quoted
            found.append(Line(kind, list(_pieces(raw, kind, start - position, end - position))))
        position += len(raw) + 1
    return found


def _pieces(line: str, kind: str, start: int, end: int) -> Iterator[Piece]:
    heading = _HEADING.match(line) if kind == "heading" else None
    at = heading.end() if heading else 0
    for low, high, code in _spans(line, at) if kind != "code" else [(0, len(line), False)]:
        edges = sorted({low, high, *(edge for edge in (start, end) if low < edge < high)})
        for left, right in pairwise(edges):
            yield Piece(line[left:right], code, start <= left and right <= end)


def _spans(line: str, at: int) -> Iterator[tuple[int, int, bool]]:
    """From `at` on: start, end, and whether it is code. Backticks are in none."""
    for match in _CODE.finditer(line, at):
        if match.start() > at:
            yield at, match.start(), False
        yield match.start(2), match.end(2), True
        at = match.end()
    if at < len(line):
        yield at, len(line), False


def _kind(line: str) -> str:
    stripped = line.lstrip()
    if _HEADING.match(stripped):
        return "heading"
    return "item" if _ITEM.match(stripped) else "text"
