"""One search of one table, from the question to its passages, with all that was found on the way."""

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any

from app.services.retrieval.commit import guarded
from app.services.retrieval.embedder import Embedder, ScriptBound
from app.services.retrieval.fuse import DENSE_WEIGHT, UNREAD_DENSE_WEIGHT
from app.services.retrieval.groups import Seen
from app.services.retrieval.legs import Legs, search_legs
from app.services.retrieval.query import Query, Rerank
from app.services.retrieval.rank import Ranked, rank
from app.services.retrieval.rerank import Reranker
from app.services.retrieval.shelf import Snapshot
from app.services.retrieval.table import COLUMNS, passage
from graphs.errors import Invalid
from graphs.types import Passage, Retrieval

CANDIDATES = 100  # of each leg; never fewer than the results asked for

# Runs what reads a table on a state of the collection's table, and says which one that was.
Read = Callable[[Callable[[Snapshot], Awaitable[Any]]], Awaitable[tuple[Any, Snapshot]]]


@dataclass(frozen=True, slots=True)
class Timings:
    """Milliseconds of each part. `legs` is LanceDB's two queries; the rest but `embed` and `rerank` is our own."""

    embed_ms: float
    legs_ms: float
    rank_ms: float
    passages_ms: float


@dataclass(frozen=True, slots=True)
class Found:
    """`passages` are the best `query.limit`, each followed by its neighbours where they were asked for."""

    query: Query
    legs: Legs
    ranked: Ranked
    passages: tuple[Passage, ...]
    timings: Timings
    collection: str
    index_version: str
    embedder: str

    @property
    def retrieval(self) -> Retrieval:
        return Retrieval(self.passages, self.index_version, self.embedder)


async def look(
    query: Query, embedder: Embedder, rerankers: Mapping[Rerank, Reranker], read: Read, *, collection: str, seen: Seen
) -> Found:
    """Raises what `read` raises, and Invalid for a re-ranker that this embedder cannot give."""
    if query.rerank != "none" and query.rerank not in rerankers:
        raise Invalid(f"the embedder {embedder.id} cannot re-rank by {query.rerank}", field="rerank")
    moments = [time.perf_counter()]
    vector = (await embedder.embed([query.text]))[0]
    moments.append(time.perf_counter())

    async def legs_of(snapshot: Snapshot) -> Legs:
        return await search_legs(snapshot, query.text, vector, query.only, max(query.limit, CANDIDATES), seen)

    legs, snapshot = await read(legs_of)
    moments.append(time.perf_counter())
    unread = isinstance(embedder, ScriptBound) and not embedder.reads(query.text)
    weight = UNREAD_DENSE_WEIGHT if unread else DENSE_WEIGHT
    ranked = await rank(legs, query, rerankers.get(query.rerank), dense_weight=weight)
    moments.append(time.perf_counter())
    best = [passage(legs.row(chunk_id), score, collection) for chunk_id, score in ranked.order[: query.limit]]
    if query.neighbours:
        best = await _with_neighbours(snapshot.table, best, legs, query.neighbours)
    moments.append(time.perf_counter())
    timings = Timings(*(round((after - before) * 1000, 3) for before, after in pairwise(moments)))
    return Found(query, legs, ranked, tuple(best), timings, collection, snapshot.label(collection), embedder.id)


async def _with_neighbours(table: Any, best: Sequence[Passage], legs: Legs, reach: int) -> list[Passage]:
    """Each passage and after it, in the document's order, the chunks beside it that no better passage brought.

    A neighbour has the score of the passage it stands beside, and is seen as it is: groups are a whole document's.
    """
    places = [(found, legs.ordinal(found.chunk_id)) for found in best]
    rows = await guarded(_rows(table, [(found.document_id, ordinal) for found, ordinal in places], reach))
    shown, beside = {found.chunk_id for found in best}, list[Passage]()
    for found, ordinal in places:
        beside.append(found)
        for near in range(ordinal - reach, ordinal + reach + 1):
            row = rows.get((found.document_id, near))
            if row is not None and row["chunk_id"] not in shown:
                shown.add(row["chunk_id"])
                beside.append(passage(row, found.score, found.collection))
    return beside


async def _rows(
    table: Any, places: Sequence[tuple[str, int]], reach: int
) -> Mapping[tuple[str, int], Mapping[str, Any]]:
    """The rows within reach of each (document id, ordinal), by the same."""
    from lancedb.expr import col, lit

    if not places:
        return {}
    tests = [
        (col("document_id") == lit(document_id))
        & (col("ordinal") >= lit(ordinal - reach))
        & (col("ordinal") <= lit(ordinal + reach))
        for document_id, ordinal in places
    ]
    found = await table.query().where(reduce(or_, tests)).select([*COLUMNS, "ordinal"]).to_arrow()
    return {(row["document_id"], row["ordinal"]): row for row in found.to_pylist()}
