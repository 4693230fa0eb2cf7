"""A cited passage in its document: the text around it, cut into lines, with the quote's characters marked.

Offsets are those of the stored normalised text, so what is highlighted is exactly what was measured.
"""

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.console.view import draw
from app.records import CardCitation

AROUND_CHARS: Final = 30_000  # on each side of the quote; a whole book would make the browser slow


@dataclass(frozen=True, slots=True)
class Line:
    """`before + marked + after` is the line; `kind` is heading, code, item or text."""

    kind: str
    before: str
    marked: str = ""
    after: str = ""


def drawn_passage(citation: CardCitation, text: str, *, run_id: str) -> Markup:
    start, end = sorted((max(0, min(citation.start, len(text))), max(0, min(citation.end, len(text)))))
    first = text.rfind("\n", 0, max(0, start - AROUND_CHARS)) + 1 if start > AROUND_CHARS else 0
    last = text.find("\n", end + AROUND_CHARS)
    last = len(text) if last == -1 else last
    return draw(
        "passage",
        citation=citation,
        run_id=run_id,
        lines=lines(text[first:last], start - first, end - first),
        hidden_before=first,
        hidden_after=len(text) - last,
    )


def lines(text: str, start: int, end: int) -> list[Line]:
    """The lines of `text`; characters from `start` to `end` (exclusive) are in their lines' `marked` parts."""
    found: list[Line] = []
    position, fenced = 0, False
    for raw in text.split("\n"):
        fence = raw.lstrip().startswith("```")
        kind = "code" if fenced or fence else _kind(raw)
        fenced = fenced != fence
        low = min(max(start - position, 0), len(raw))
        high = min(max(end - position, 0), len(raw))
        found.append(Line(kind, raw[:low], raw[low:high], raw[high:]))
        position += len(raw) + 1
    return found


def _kind(line: str) -> str:
    stripped = line.lstrip()
    if stripped.startswith("#"):
        return "heading"
    return "item" if stripped.startswith(("- ", "* ", "|")) else "text"
