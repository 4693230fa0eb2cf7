"""Citations and refusals of an answer card."""

from collections.abc import Mapping, Sequence

from app.records import AnswerCard
from evals.metrics.retrieval import holds
from evals.metrics.score import UNSCORED_NO_GOLD, Score


def citation_precision(card: AnswerCard, gold: Mapping[str, Sequence[str]], wants_answer: bool) -> Score:
    """Share of citations whose quoted text overlaps a gold quote of the page it is from; unscored without citations.

    Where a refusal is right every citation is wrong.
    """
    if wants_answer and not gold:
        return UNSCORED_NO_GOLD
    if not card.citations:
        return Score(None, "the answer cites nothing")
    right = sum(overlaps(citation.quote, gold.get(citation.document_id, ())) for citation in card.citations)
    return Score(right / len(card.citations))


def overlaps(quote: str, golds: Sequence[str]) -> bool:
    """Whether the quote holds one of the golds or stands in one."""
    return holds(quote, golds) or any(holds(gold, [quote]) for gold in golds)


def right_refusal(card: AnswerCard, wants_answer: bool) -> Score:
    """1 if the answer refuses exactly when a refusal is right."""
    return Score(float(card.answered == wants_answer))
