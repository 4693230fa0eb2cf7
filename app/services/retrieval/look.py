"""One search of one table, from the question to its passages, with all that was found on the way."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Any

from app.services.retrieval.commit import guarded
from app.services.retrieval.embedder import Embedder, ScriptBound, TwoSided
from app.services.retrieval.fuse import DENSE_WEIGHT, UNREAD_DENSE_WEIGHT, fuse
from app.services.retrieval.groups import Seen
from app.services.retrieval.legs import Legs, search_legs
from app.services.retrieval.merge import merge
from app.services.retrieval.query import Query
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
    """Milliseconds of each part. `legs` is LanceDB's queries, two of them for each wording; `rank` is without `rerank`.

    All but `embed`, `legs` and `rerank` is our own.
    """

    embed_ms: float
    legs_ms: float
    rank_ms: float
    rerank_ms: float
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
    variant_ranks: tuple[Mapping[str, int], ...] = field(default=())
    """For each variant of the query, the rank of the chunks that it found, from 1."""

    @property
    def retrieval(self) -> Retrieval:
        reranked_by = self.query.rerank if self.ranked.reranked else ""
        return Retrieval(self.passages, self.index_version, self.embedder, reranked_by, self.ranked.not_reranked)


async def look(
    query: Query, embedder: Embedder, rerankers: Mapping[str, Reranker], read: Read, *, collection: str, seen: Seen
) -> Found:
    """Raises what `read` raises, and Invalid for a re-ranker that this embedder cannot give."""
    if query.rerank != "none" and query.rerank not in rerankers:
        raise Invalid(f"the embedder {embedder.id} cannot re-rank by {query.rerank}", field="rerank")
    moments = [time.perf_counter()]
    texts = [query.text, *query.variants]
    embed = embedder.embed_questions if isinstance(embedder, TwoSided) else embedder.embed
    # Each by itself: the embedders remember single texts.
    vectors = [made[0] for made in await asyncio.gather(*(embed([text]) for text in texts))]
    moments.append(time.perf_counter())

    async def legs_of(snapshot: Snapshot) -> list[Legs]:
        most = max(query.limit, CANDIDATES)
        return await asyncio.gather(
            *(
                search_legs(snapshot, text, vector, query.only, most, seen)
                for text, vector in zip(texts, vectors, strict=True)
            )
        )

    found, snapshot = await read(legs_of)
    moments.append(time.perf_counter())
    rankings = [_fused(each, text, embedder) for each, text in zip(found, texts, strict=True)]
    legs = found[0].beside(found[1:], vectors[0])
    ranked = await rank(legs, query, rerankers.get(query.rerank), merge(rankings, query.fusion))
    moments.append(time.perf_counter())
    best = [passage(legs.row(chunk_id), score, collection) for chunk_id, score in ranked.order[: query.limit]]
    if query.neighbours:
        best = await _with_neighbours(snapshot.table, best, legs, query.neighbours)
    moments.append(time.perf_counter())
    embed_ms, legs_ms, rank_ms, passages_ms = (round((after - before) * 1000, 3) for before, after in pairwise(moments))
    return Found(
        query,
        legs,
        ranked,
        tuple(best),
        Timings(embed_ms, legs_ms, round(rank_ms - ranked.rerank_ms, 3), ranked.rerank_ms, passages_ms),
        collection,
        snapshot.label(collection),
        embedder.id,
        tuple({chunk_id: place for place, (chunk_id, _) in enumerate(each, 1)} for each in rankings[1:]),
    )


def _fused(legs: Legs, text: str, embedder: Embedder) -> list[tuple[str, float]]:
    unread = isinstance(embedder, ScriptBound) and not embedder.reads(text)
    return fuse(legs.cosines, legs.bm25, dense_weight=UNREAD_DENSE_WEIGHT if unread else DENSE_WEIGHT)


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
