"""Candidates into their final order: perhaps read a second time, perhaps spread over what they say."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from app.services.retrieval.diversify import diversify
from app.services.retrieval.legs import Legs
from app.services.retrieval.query import Query
from app.services.retrieval.rerank import RERANKED, Reranker
from graphs.errors import Forbidden, QuotaExhausted, UpstreamError

log = logging.getLogger(__name__)

POOL = 50  # candidates that diversity chooses from; never fewer than the results asked for

Order = list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class Ranked:
    """`order` is final, all candidates in it; `fused` is what the legs alone gave, `reranked` the second scores.

    `not_reranked` is why there are none where they were wished for: the order is that of the legs then.
    """

    order: Order
    fused: Order
    reranked: Mapping[str, float] = field(default_factory=dict)
    not_reranked: str = ""
    rerank_ms: float = 0.0


async def rank(legs: Legs, query: Query, reranker: Reranker | None, fused: Order) -> Ranked:
    began = time.perf_counter()
    order, reranked, trouble = fused, dict[str, float](), ""
    if reranker is not None and fused:
        best = [chunk_id for chunk_id, _ in fused[:RERANKED]]
        try:
            scores = await reranker.scores(query.text, [legs.text(chunk_id) for chunk_id in best])
        except (UpstreamError, QuotaExhausted, Forbidden) as error:
            # A search without a second opinion is worth more than none; whoever reads it is told.
            log.warning("candidates were not re-ranked", extra={"reranker": query.rerank, "code": error.code})
            trouble = f"{query.rerank}: {error.message}"
        else:
            reranked = dict(zip(best, scores, strict=True))
            order = _second_order(fused, reranked)
    rerank_ms = round((time.perf_counter() - began) * 1000, 3)
    if query.diversity and order:
        order = _spread(order, legs, query)
    return Ranked(order, fused, reranked, trouble, rerank_ms)


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
