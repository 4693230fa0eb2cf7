"""Documents as the Knowledge tab shows them: what kind of file each was, and one of them opened."""

from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

from app.console.passage import AROUND_CHARS, excerpt
from app.console.view import draw
from app.services.store.records import DocumentRecord

_KINDS: Final[Mapping[str, str]] = {
    "application/pdf": "PDF",
    "text/html": "HTML",
    "text/markdown": "Markdown",
    "text/plain": "Text",
    "text/csv": "CSV",
    "application/json": "JSON",
    "application/x-ndjson": "JSON lines",
    "message/rfc822": "Mail",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "Word",
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": "PowerPoint",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "Excel",
}


def kind(media_type: str) -> str:
    """A word for a media type; the type itself where there is none."""
    return _KINDS.get(media_type, media_type)


def drawn_document(
    record: DocumentRecord, text: str, *, place: tuple[int, int] | None = None, at: int = 0, lost: str = ""
) -> Markup:
    """The text around `place`, which is marked, or around `at`. `lost` is a passage that the text holds no more."""
    shown = excerpt(text, *(place or (at, at)))
    return draw(
        "document",
        record=record,
        kind=kind(record.media_type),
        excerpt=shown,
        earlier=max(shown.hidden_before - AROUND_CHARS, 0) if shown.hidden_before else None,
        later=len(text) - shown.hidden_after + AROUND_CHARS if shown.hidden_after else None,
        lost=lost,
    )
