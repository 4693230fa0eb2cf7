"""Candidates into their final order: fused, perhaps read a second time, perhaps spread over what they say."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.services.retrieval.diversify import diversify
from app.services.retrieval.fuse import fuse
from app.services.retrieval.legs import Legs
from app.services.retrieval.query import Query
from app.services.retrieval.rerank import RERANKED, Reranker

POOL = 50  # candidates that diversity chooses from; never fewer than the results asked for

Order = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Ranked:
    """`order` is final, all candidates in it; `fused` is what the legs alone gave, `reranked` the second scores."""

    order: Order
    fused: Order
    reranked: Mapping[str, float] = field(default_factory=dict)


async def rank(legs: Legs, query: Query, reranker: Reranker | None, *, dense_weight: float) -> Ranked:
    fused = fuse(legs.cosines, legs.bm25, dense_weight=dense_weight)
    order, reranked = fused, dict[str, float]()
    if reranker is not None and fused:
        best = [chunk_id for chunk_id, _ in fused[:RERANKED]]
        scores = await reranker.scores(query.text, [legs.text(chunk_id) for chunk_id in best])
        reranked = dict(zip(best, scores, strict=True))
        order = _second_order(fused, reranked)
    if query.diversity and order:
        order = _spread(order, legs, query)
    return Ranked(order, fused, reranked)


def _second_order(fused: Order, reranked: Mapping[str, float]) -> Order:
    """Those that were read by their second score; the others stay behind them, never with a higher one."""
    first = sorted(reranked.items(), key=lambda item: -item[1])
    lowest = first[-1][1]
    return first + [(chunk_id, min(score, lowest)) for chunk_id, score in fused[len(first) :]]


def _spread(order: Order, legs: Legs, query: Query) -> Order:
    pool = order[: max(query.limit, POOL)]
    vectors = legs.vectors([chunk_id for chunk_id, _ in pool])
    chosen = diversify([score for _, score in pool], vectors, diversity=query.diversity, limit=query.limit)
    taken = set(chosen)
    return [pool[place] for place in chosen] + [item for place, item in enumerate(order) if place not in taken]
