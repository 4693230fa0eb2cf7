"""How a collection lies in LanceDB: its table's name, columns, rows and text index.

One table for each tenant and collection, named by a hash, so that no name from outside reaches a path or a filter.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.services.retrieval.filters import facets
from app.services.retrieval.groups import written_groups
from app.services.retrieval.recipe import DEFAULT, Recipe, written
from graphs.types import Passage, Trust

LAYOUT = 1  # of the columns; one more whenever they or what they mean change

# What a passage is made of; a search selects these by name, so that vectors stay where they are.
COLUMNS = ("chunk_id", "document_id", "title", "heading", "text", "start", "end", "metadata", "trust")

# Words joined by _ . : / or -, or camelCase: names of settings, error codes, metrics, paths.
_IDENTIFIER = re.compile(r"[A-Za-z0-9]+(?:[_.:/-]+[A-Za-z0-9]+)+")


class Chunk(Protocol):
    """A piece of a document; `start` and `end` count in its normalised text.

    `place` (page, slide, sheet, rows of the original) joins the document's metadata, which wins where both name one.
    """

    @property
    def text(self) -> str: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def heading(self) -> str: ...
    @property
    def place(self) -> Mapping[str, str | int]: ...


class Entry(Protocol):
    """A document as it goes into the index.

    `state` is a digest of whatever it was made from, `vectors` has one row for each chunk, of the library's embedder.
    """

    @property
    def document_id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def chunks(self) -> Sequence[Chunk]: ...
    @property
    def state(self) -> str: ...
    @property
    def vectors(self) -> NDArray[np.float32]: ...
    @property
    def allow_groups(self) -> Sequence[str]: ...
    @property
    def trust(self) -> Trust: ...


def table_name(tenant_id: str, collection: str) -> str:
    return "c_" + hashlib.sha256(json.dumps([tenant_id, collection]).encode()).hexdigest()[:40]


def made_by(embedder_id: str | None) -> str:
    """What tables carry to be told apart: rows of another embedder or another layout cannot be searched together."""
    return f"{embedder_id}, layout {LAYOUT}"


def schema(embedder_id: str, dimensions: int, recipe: Recipe = DEFAULT) -> Any:
    import pyarrow as pa  # Lazy, as lancedb is: 47 MB

    # merge_insert from several processes doubles rows unless the table declares this key on a column without nulls.
    key = {"lance-schema:unenforced-primary-key": "true", "lance-schema:unenforced-primary-key:position": "1"}
    return pa.schema(
        [
            pa.field("chunk_id", pa.string(), nullable=False, metadata=key),
            pa.field("document_id", pa.string(), nullable=False),
            pa.field("title", pa.string(), nullable=False),
            pa.field("heading", pa.string(), nullable=False),
            pa.field("text", pa.string(), nullable=False),
            pa.field("start", pa.int64(), nullable=False),
            pa.field("end", pa.int64(), nullable=False),
            pa.field("ordinal", pa.int32(), nullable=False),
            pa.field("metadata", pa.string(), nullable=False),
            pa.field("state", pa.string(), nullable=False),
            pa.field("facets", pa.string(), nullable=False),
            pa.field("words", pa.string(), nullable=False),
            # Nullable, as in tables that got them later: LanceDB adds no others.
            pa.field("allow_groups", pa.list_(pa.string())),
            pa.field("trust", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), dimensions), nullable=False),
        ],
        metadata={b"made": made_by(embedder_id).encode()} | written(recipe),
    )


def rows(tenant_id: str, collection: str, entries: Sequence[Entry]) -> Iterator[dict[str, Any]]:
    """One dict for each chunk, without its vector. Chunk ids are the same whenever the same text comes again."""
    for entry in entries:
        for ordinal, chunk in enumerate(entry.chunks):
            metadata = {**chunk.place, **entry.metadata}
            identity = json.dumps([tenant_id, collection, entry.document_id, ordinal, chunk.text])
            yield {
                "chunk_id": hashlib.sha256(identity.encode()).hexdigest()[:32],
                "document_id": entry.document_id,
                "title": entry.title,
                "heading": chunk.heading,
                "text": chunk.text,
                "start": chunk.start,
                "end": chunk.end,
                "ordinal": ordinal,
                "metadata": json.dumps(metadata),
                "state": entry.state,
                "facets": facet_lines(facets(metadata)),
                "words": words("\n".join((entry.title, chunk.heading, chunk.text))),
                "allow_groups": written_groups(entry.allow_groups),
                "trust": entry.trust,
            }


def facet_lines(found: Sequence[str]) -> str:
    """Each facet between line ends, so that `contains(a line)` is equality. JSON has no raw line end inside."""
    return "".join(f"\n{line}\n" for line in found)


def words(text: str) -> str:
    """What the text index reads: the text and, for each identifier in it, its joined form as one more word.

    The index splits PILOTHOUSE_OWNER_KEY into three common words; `pilothouseownerkey` finds that very name.
    """
    joined = {re.sub(r"[^A-Za-z0-9]", "", name).lower() for name in _IDENTIFIER.findall(text)}
    return " ".join([text, *sorted(joined)])


def passage(row: Mapping[str, Any], score: float, collection: str) -> Passage:
    return Passage(
        chunk_id=row["chunk_id"],
        document_id=row["document_id"],
        title=row["title"],
        text=row["text"],
        start=row["start"],
        end=row["end"],
        score=score,
        collection=collection,
        heading=row["heading"],
        metadata=json.loads(row["metadata"]),
        trust=row["trust"],
    )
