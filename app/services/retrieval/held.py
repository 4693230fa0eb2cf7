"""Documents as they lie in an index, for whoever makes them anew from there."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.retrieval.embedder import Vectors
from app.services.retrieval.groups import read_groups
from app.services.retrieval.table import Chunk
from graphs.types import Trust

# Keys of a row's metadata that may be its chunk's own. Kept with the chunk even where the document named them, since
# putting the two together again gives the same.
PLACES = frozenset({"page", "slide", "sheet", "row", "lastRow"})


@dataclass(frozen=True, slots=True)
class HeldChunk:
    text: str
    start: int
    end: int
    heading: str
    place: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class HeldDocument:
    """`chunks` in the document's order."""

    document_id: str
    title: str
    metadata: Mapping[str, Any]
    state: str
    chunks: Sequence[Chunk]
    allow_groups: tuple[str, ...]
    trust: Trust


@dataclass(frozen=True, slots=True)
class HeldEntry:
    """A held document with new vectors, as the index takes it."""

    document: HeldDocument
    vectors: Vectors

    @property
    def document_id(self) -> str:
        return self.document.document_id

    @property
    def title(self) -> str:
        return self.document.title

    @property
    def metadata(self) -> Mapping[str, Any]:
        return self.document.metadata

    @property
    def state(self) -> str:
        return self.document.state

    @property
    def chunks(self) -> Sequence[Chunk]:
        return self.document.chunks

    @property
    def allow_groups(self) -> Sequence[str]:
        return self.document.allow_groups

    @property
    def trust(self) -> Trust:
        return self.document.trust


def held_documents(rows: Iterable[Mapping[str, Any]]) -> list[HeldDocument]:
    """Rows of the index in any order, as documents by id."""
    by_document = dict[str, list[Mapping[str, Any]]]()
    for row in sorted(rows, key=lambda row: (row["document_id"], row["ordinal"])):
        by_document.setdefault(row["document_id"], []).append(row)
    return [
        HeldDocument(
            document_id,
            pieces[0]["title"],
            {key: value for key, value in json.loads(pieces[0]["metadata"]).items() if key not in PLACES},
            pieces[0]["state"],
            tuple(_chunk(piece) for piece in pieces),
            read_groups(pieces[0]["allow_groups"]),
            pieces[0]["trust"],
        )
        for document_id, pieces in by_document.items()
    ]


def _chunk(row: Mapping[str, Any]) -> HeldChunk:
    place = {key: value for key, value in json.loads(row["metadata"]).items() if key in PLACES}
    return HeldChunk(row["text"], row["start"], row["end"], row["heading"], place)
