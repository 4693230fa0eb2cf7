"""A document's structure as the store keeps it beside the text, so that it can be cut anew without its source."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from app.services.ingest.document import Block, ParsedDocument, Place


class Piece(Protocol):
    """A chunk that an index holds; the offsets count in the document's text."""

    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def heading(self) -> str: ...
    @property
    def place(self) -> Mapping[str, str | int]: ...


def written(document: ParsedDocument) -> str:
    """The blocks as JSON, without what most of them do not have."""
    return json.dumps([list(_trimmed(block)) for block in document.blocks], ensure_ascii=False, separators=(",", ":"))


def read(title: str, media_type: str, text: str, structure: str, pieces: Sequence[Piece]) -> ParsedDocument:
    """The document again. `pieces` stand in for its blocks where it was taken in before structures were kept."""
    blocks = (_block(*told) for told in json.loads(structure)) if structure else _apart(pieces)
    return ParsedDocument(title, text, tuple(blocks), media_type)


def _trimmed(block: Block) -> Iterator[Any]:
    """Start, end, and what follows up to the last that is not empty."""
    place = block.place
    told = [block.heading, int(block.whole), block.columns, place.page, place.slide, place.sheet, place.row]
    while told and not told[-1]:
        told.pop()
    yield from (block.start, block.end, *told)


def _block(
    start: int,
    end: int,
    heading: str = "",
    whole: int = 0,
    columns: str = "",
    page: int = 0,
    slide: int = 0,
    sheet: str = "",
    row: int = 0,
) -> Block:
    return Block(start, end, heading, bool(whole), Place(page, slide, sheet, row), columns)


def _apart(pieces: Sequence[Piece]) -> Iterator[Block]:
    """Pieces may overlap, and blocks do not."""
    after = 0
    for piece in sorted(pieces, key=lambda piece: piece.start):
        if piece.end > max(after, piece.start):
            place = {key: piece.place[key] for key in ("page", "slide", "sheet", "row") if key in piece.place}
            yield Block(max(after, piece.start), piece.end, piece.heading, place=Place(**place))  # type: ignore[arg-type]
            after = piece.end
