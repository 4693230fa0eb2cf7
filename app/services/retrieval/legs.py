"""The two looks at a table that make a search: the nearest vectors, and the best matching words."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from app.services.retrieval.embedder import Vectors
from app.services.retrieval.filters import Filter
from app.services.retrieval.groups import Seen
from app.services.retrieval.predicate import predicate
from app.services.retrieval.shelf import Snapshot
from app.services.retrieval.table import COLUMNS, words

SELECTED = (*COLUMNS, "ordinal", "vector")


@dataclass(frozen=True, slots=True)
class Legs:
    """Candidates by chunk id: the cosine of each, the BM25 score of those that share a word.

    `ranks` holds the place of a chunk in each leg that found it, from 1: (in the vector leg, in the text leg); neither
    for one that only another wording of the question found.
    """

    cosines: Mapping[str, float]
    bm25: Mapping[str, float]
    ranks: Mapping[str, tuple[int | None, int | None]]
    _tables: tuple[Any, Any]
    whole: bool = True  # nothing was kept from who asked
    _others: Mapping[str, "Legs"] = field(default_factory=dict)

    def row(self, chunk_id: str) -> Mapping[str, Any]:
        """The columns of a passage; read when asked for, since most candidates are never shown."""
        table, index = self._place(chunk_id)
        return {name: table[name][index].as_py() for name in COLUMNS}

    def text(self, chunk_id: str) -> str:
        table, index = self._place(chunk_id)
        return str(table["text"][index].as_py())

    def ordinal(self, chunk_id: str) -> int:
        """Its place in its document, from 0."""
        table, index = self._place(chunk_id)
        return int(table["ordinal"][index].as_py())

    def vectors(self, chunk_ids: Sequence[str]) -> Vectors:
        """Shape (len(chunk_ids), dimensions)."""
        places = [self._place(chunk_id) for chunk_id in chunk_ids]
        tables = {id(table): table for table, _ in places}
        matrices = {key: _matrix(table) for key, table in tables.items()}
        return np.stack([matrices[id(table)][index] for table, index in places])

    def beside(self, others: Sequence["Legs"], vector: Vectors) -> "Legs":
        """These with what the legs of other wordings found beyond them; `vector` is this question's own."""
        found = dict[str, Legs]()
        for other in others:
            for chunk_id in other.ranks:
                if chunk_id not in self.ranks:
                    found.setdefault(chunk_id, other)
        if not found:
            return self
        more = list(found)
        cosines = [float(found[chunk_id].vectors([chunk_id])[0] @ vector) for chunk_id in more]
        return Legs(
            cosines={**self.cosines, **dict(zip(more, cosines, strict=True))},
            bm25=self.bm25,
            ranks={**self.ranks, **dict.fromkeys(more, (None, None))},
            _tables=self._tables,
            whole=self.whole,
            _others=found,
        )

    def _place(self, chunk_id: str) -> tuple[Any, int]:
        if (other := self._others.get(chunk_id)) is not None:
            return other._place(chunk_id)
        near, match = self.ranks[chunk_id]
        return (self._tables[0], near - 1) if near else (self._tables[1], (match or 0) - 1)


async def search_legs(
    snapshot: Snapshot, question: str, vector: Vectors, only: Filter | None, limit: int, seen: Seen
) -> Legs:
    """Up to `limit` rows of each leg that are seen and pass the filter; both read the same version, at the same time.

    Rows that are not seen are left out before the nearest are taken, so that they push nothing out.
    """
    from lancedb.query import MatchQuery

    allowed = await seen.line(snapshot)
    asked = predicate(only) if only is not None else None
    line = " AND ".join(filter(None, (allowed, asked))) or None
    matching = snapshot.table.query().nearest_to_text(MatchQuery(words(question), "words"))
    matching = matching.select([*SELECTED, "_score"]).limit(limit)
    if line is not None:
        matching = matching.where(line)

    async def nearest_rows() -> Any:
        near = await snapshot.near.query(snapshot.table, vector, line)
        return await near.select([*SELECTED, "_distance"]).limit(limit).to_arrow()

    nearest, matched = await asyncio.gather(nearest_rows(), matching.to_arrow())
    return _legs(nearest, matched, vector, whole=allowed is None)


def _legs(nearest: Any, matched: Any, vector: Vectors, *, whole: bool) -> Legs:
    near_ids, match_ids = nearest["chunk_id"].to_pylist(), matched["chunk_id"].to_pylist()
    # The text leg's rows get their cosine too: leaving it at 0 would push down a passage that only just missed the cut.
    cosines = dict(zip(match_ids, (_matrix(matched) @ vector).tolist(), strict=True))
    cosines |= zip(near_ids, (1 - nearest["_distance"].to_numpy()).tolist(), strict=True)
    near_ranks = {chunk_id: rank for rank, chunk_id in enumerate(near_ids, 1)}
    match_ranks = {chunk_id: rank for rank, chunk_id in enumerate(match_ids, 1)}
    return Legs(
        cosines=cosines,
        bm25=dict(zip(match_ids, matched["_score"].to_pylist(), strict=True)),
        ranks={chunk_id: (near_ranks.get(chunk_id), match_ranks.get(chunk_id)) for chunk_id in cosines},
        _tables=(nearest, matched),
        whole=whole,
    )


def _matrix(table: Any) -> Vectors:
    column = table["vector"].combine_chunks()
    matrix: Vectors = column.flatten().to_numpy().reshape(-1, column.type.list_size)
    return matrix
