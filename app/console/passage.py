"""A cited passage in its document: the text around it, with the quote's characters marked.

Offsets are those of the stored normalised text, so what is highlighted is exactly what was measured.
"""

from typing import Final

from markupsafe import Markup

from app.console.lines import lines
from app.console.view import draw
from app.records import CardCitation

AROUND_CHARS: Final = 30_000  # on each side of the quote; a whole book would make the browser slow


def drawn_passage(citation: CardCitation, text: str, *, run_id: str) -> Markup:
    start, end = sorted((max(0, min(citation.start, len(text))), max(0, min(citation.end, len(text)))))
    first = text.rfind("\n", 0, start - AROUND_CHARS) + 1 if start > AROUND_CHARS else 0
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
