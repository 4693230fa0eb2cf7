"""Every candidate of a search with its scores, and why it is not among the passages shown."""

from dataclasses import dataclass

from app.services.retrieval.look import Found
from app.services.retrieval.table import passage
from graphs.types import Passage


@dataclass(frozen=True, slots=True)
class Candidate:
    """Ranks are from 1. A leg that did not find the passage gives it no rank; a text without a word of the question
    has no BM25 score, and none is told where documents are hidden from who asks, since it counts their words too.
    `variant_ranks` are those by each other wording that was searched. `why_not` is empty for the passages shown."""

    passage: Passage
    rank: int
    cosine: float
    vector_rank: int | None
    bm25: float | None
    text_rank: int | None
    fused: float
    fused_rank: int
    reranked: float | None
    why_not: str
    variant_ranks: tuple[int | None, ...] = ()


def explain(found: Found) -> tuple[Candidate, ...]:
    """In the final order; the first `found.query.limit` of them are the ones shown."""
    fused = {chunk_id: (place, score) for place, (chunk_id, score) in enumerate(found.ranked.fused, 1)}
    return tuple(
        Candidate(
            passage=passage(found.legs.row(chunk_id), score, found.collection),
            rank=rank,
            cosine=found.legs.cosines[chunk_id],
            vector_rank=found.legs.ranks[chunk_id][0],
            bm25=found.legs.bm25.get(chunk_id) if found.legs.whole else None,
            text_rank=found.legs.ranks[chunk_id][1],
            fused=fused[chunk_id][1],
            fused_rank=fused[chunk_id][0],
            reranked=found.ranked.reranked.get(chunk_id),
            why_not=_why_not(found, chunk_id, rank, score, fused[chunk_id][0]),
            variant_ranks=tuple(ranks.get(chunk_id) for ranks in found.variant_ranks),
        )
        for rank, (chunk_id, score) in enumerate(found.ranked.order, 1)
    )


def _why_not(found: Found, chunk_id: str, rank: int, score: float, fused_rank: int) -> str:
    limit = found.query.limit
    if rank <= limit:
        return ""
    last = found.ranked.order[limit - 1][1]
    reasons = [f"its score {score:.4f} is rank {rank}; the last of {limit} shown has {last:.4f}"]
    near, match = found.legs.ranks[chunk_id]
    if match is None:
        reasons.append("the text leg did not find it: it shares no word with the question, or many match better")
    if near is None:
        reasons.append("the vector leg did not find it: others are nearer in meaning")
    if fused_rank <= limit:
        moved = found.query.diversity and score >= last
        reasons.append(
            f"rank {fused_rank} by fusion, but too like a passage above it"
            if moved
            else f"rank {fused_rank} by fusion, but the re-ranker prefers others"
        )
    return "; ".join(reasons)
