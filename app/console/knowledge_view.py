"""Documents as the Knowledge tab shows them: what kind of file each was, and one of them opened."""

import re
from collections.abc import Mapping
from typing import Final

from markupsafe import Markup

from app.console.knowledge_groups import TRUSTS
from app.console.passage import AROUND_CHARS, excerpt, quoted
from app.console.view import draw
from app.names import HANDBOOK
from app.records import CardCitation
from app.services.store.records import DocumentRecord
from graphs.types import Passage

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


def begin(written: str, text: str) -> int:
    """Where in the text to begin, from what a browser sent; its beginning if that is no number."""
    return min(int(written), len(text)) if re.fullmatch(r"[0-9]{1,12}", written) else 0


def drawn_document(
    record: DocumentRecord,
    text: str,
    *,
    place: tuple[int, int] | None = None,
    at: int = 0,
    lost: str = "",
    writable: bool = False,
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
        trusts=TRUSTS,
        shared=record.collection == HANDBOOK,
        writable=writable,
    )


def drawn_found(record: DocumentRecord, text: str, passage: Passage, *, writable: bool) -> Markup:
    """A passage that a search found, marked in its document as it is now."""
    cited = CardCitation(
        number=0,
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        title=passage.title,
        heading=passage.heading,
        quote=passage.text,
        start=passage.start,
        end=passage.end,
        score=passage.score,
        collection=passage.collection,
    )
    place = quoted(cited, text)
    return drawn_document(record, text, place=place, lost="" if place else passage.text, writable=writable)
