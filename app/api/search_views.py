"""What a search says over HTTP."""

from typing import TYPE_CHECKING, Self

from app.api.views import ResultOut
from app.records import Camel
from graphs.types import Retrieval

if TYPE_CHECKING:
    from app.services.retrieval.explain import Candidate
    from app.services.retrieval.look import Found


class CandidateOut(ResultOut):
    """A passage that a leg found, `score` being its final one. Ranks are from 1, in each leg, by fusion, at the end.

    A leg that did not find it gives no rank; without a word of the question there is no `bm25`. `whyNot` is empty for
    the top k.
    """

    rank: int
    cosine: float
    vector_rank: int | None
    bm25: float | None
    text_rank: int | None
    fused: float
    fused_rank: int
    reranked: float | None
    why_not: str

    @classmethod
    def seen(cls, candidate: "Candidate") -> Self:
        passage = ResultOut.of(candidate.passage).model_dump()
        own = ("rank", "cosine", "vector_rank", "bm25", "text_rank", "fused", "fused_rank", "reranked", "why_not")
        return cls(**passage, **{name: getattr(candidate, name) for name in own})


class TimingsOut(Camel):
    """Milliseconds: embedding the question, both queries of the index, ranking (and re-ranking), reading passages."""

    embed_ms: float
    legs_ms: float
    rank_ms: float
    passages_ms: float


class ExplanationOut(Camel):
    candidates: list[CandidateOut]
    timings: TimingsOut

    @classmethod
    def of(cls, found: "Found") -> Self:
        from app.services.retrieval.explain import explain  # as the retriever: with the index's libraries

        timings = TimingsOut.model_validate(found.timings, from_attributes=True)
        return cls(candidates=[CandidateOut.seen(candidate) for candidate in explain(found)], timings=timings)


class SearchOut(Camel):
    """`explanation` is there if it was asked for."""

    results: list[ResultOut]
    index_version: str
    embedder: str
    explanation: ExplanationOut | None = None

    @classmethod
    def of(cls, found: Retrieval) -> Self:
        results = [ResultOut.of(passage) for passage in found.passages]
        return cls(results=results, index_version=found.index_version, embedder=found.embedder)
