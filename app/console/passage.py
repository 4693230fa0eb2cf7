"""A cited passage in its document: the text around it, with the quote's characters marked.

Offsets are those of the stored normalised text, so what is highlighted is exactly what was measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from app.console.lines import Line, lines
from app.console.view import draw
from app.records import CardCitation

AROUND_CHARS: Final = 30_000  # on each side of the quote; a whole book would make the browser slow


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of a document, and how many of its characters lie before and after them."""

    lines: Sequence[Line]
    hidden_before: int
    hidden_after: int


def drawn_passage(citation: CardCitation, text: str, *, run_id: str) -> Markup:
    place = quoted(citation, text)
    return draw(
        "passage",
        citation=citation,
        run_id=run_id,
        excerpt=excerpt(text, *(place or (0, 0))),
        changed=place is None,
    )


def excerpt(text: str, start: int = 0, end: int = 0) -> Excerpt:
    """What is around the characters from `start` to `end`, which are marked."""
    first = text.rfind("\n", 0, start - AROUND_CHARS) + 1 if start > AROUND_CHARS else 0
    last = text.find("\n", end + AROUND_CHARS)
    last = len(text) if last == -1 else last
    return Excerpt(lines(text[first:last], start - first, end - first), first, len(text) - last)


def quoted(citation: CardCitation, text: str) -> tuple[int, int] | None:
    """Where the quote is in the document as it is now; None if it was changed and does not hold it any more."""
    if text[citation.start : citation.end].strip() == citation.quote.strip():
        return citation.start, citation.end
    moved = text.find(citation.quote) if citation.quote else -1
    return None if moved == -1 else (moved, moved + len(citation.quote))
