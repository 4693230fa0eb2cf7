"""Citations and refusals of an answer card."""

from collections.abc import Sequence

from app.records import AnswerCard
from evals.metrics.retrieval import holds
from evals.metrics.score import Score


def citation_precision(card: AnswerCard, document_id: str | None, quotes: Sequence[str]) -> Score:
    """Share of citations whose quoted text overlaps a gold quote on the gold page; unscored without citations.

    For a question without an answer every citation is wrong.
    """
    if not card.citations:
        return Score(None, "the answer cites nothing")
    right = sum(
        citation.document_id == document_id and _overlaps(citation.quote, quotes) for citation in card.citations
    )
    return Score(right / len(card.citations))


def _overlaps(quote: str, golds: Sequence[str]) -> bool:
    return holds(quote, golds) or any(holds(gold, [quote]) for gold in golds)


def right_refusal(card: AnswerCard, golds: Sequence[str]) -> Score:
    """1 if the answer refuses exactly when the handbook holds no answer."""
    return Score(float(card.answered == bool(golds)))
