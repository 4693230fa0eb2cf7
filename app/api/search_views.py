"""What a search says over HTTP."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

from app.api.views import ResultOut
from app.card import searched
from app.records import Camel, CardSearch

if TYPE_CHECKING:
    from app.search import Searched
    from app.services.retrieval.explain import Candidate


class CandidateOut(ResultOut):
    """A passage that a leg found, `score` being its final one. Ranks are from 1, in each leg, by fusion, at the end.

    A leg that did not find it gives no rank; without a word of the question there is no `bm25`. `variantRanks` are by
    each other wording that was searched. `whyNot` is empty for the top k.
    """

    rank: int
    cosine: float
    vector_rank: int | None
    bm25: float | None
    text_rank: int | None
    fused: float
    fused_rank: int
    reranked: float | None
    variant_ranks: list[int | None]
    why_not: str

    @classmethod
    def seen(cls, candidate: "Candidate") -> Self:
        passage = ResultOut.of(candidate.passage).model_dump()
        own = ("rank", "cosine", "vector_rank", "bm25", "text_rank", "fused", "fused_rank", "reranked", "why_not")
        ranks = list(candidate.variant_ranks)
        return cls(**passage, **{name: getattr(candidate, name) for name in own}, variant_ranks=ranks)


class TimingsOut(Camel):
    """Milliseconds: wording a follow-up, other wordings, embedding them, the index's queries, ranking, re-ranking,
    reading passages."""

    reword_ms: float
    vary_ms: float
    embed_ms: float
    legs_ms: float
    rank_ms: float
    rerank_ms: float
    passages_ms: float


class ExplanationOut(Camel):
    candidates: list[CandidateOut]
    timings: TimingsOut

    @classmethod
    def of(cls, done: "Searched") -> Self:
        from app.services.retrieval.explain import explain  # as the retriever: with the index's libraries

        timings = TimingsOut(reword_ms=done.reword_ms, vary_ms=done.vary_ms, **asdict(done.found.timings))
        return cls(candidates=[CandidateOut.seen(candidate) for candidate in explain(done.found)], timings=timings)


class SearchOut(Camel):
    """`search` is what was searched in the place of the query; `explanation` is there if it was asked for."""

    results: list[ResultOut]
    index_version: str
    embedder: str
    search: CardSearch
    explanation: ExplanationOut | None = None

    @classmethod
    def of(cls, done: "Searched", *, explained: bool) -> Self:
        found = done.found.retrieval
        told: dict[str, Any] = {"explanation": ExplanationOut.of(done)} if explained else {}
        return cls(
            results=[ResultOut.of(passage) for passage in found.passages],
            index_version=found.index_version,
            embedder=found.embedder,
            search=searched(done.wording, done.variants, found.reranked_by, found.not_reranked),
            **told,
        )
