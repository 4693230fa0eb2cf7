"""Retrieval against gold quotes: where in the ranking the question's fact is first held."""

from collections.abc import Mapping, Sequence

import pytrec_eval

from evals.metrics.score import UNSCORED_NO_GOLD, Score
from graphs.types import Passage

MEASURES = {"recall.1,3,6,10", "ndcg_cut.10", "recip_rank"}
_SHOWN = {
    "recall_1": "recall@1",
    "recall_3": "recall@3",
    "recall_6": "recall@6",
    "recall_10": "recall@10",
    "ndcg_cut_10": "ndcg@10",
    "recip_rank": "mrr",
}


def holds(text: str, quotes: Sequence[str]) -> bool:
    """Whether the text holds one of the quotes, whatever the white space."""
    flat = " ".join(text.split())
    return any(" ".join(quote.split()) in flat for quote in quotes)


def relevant(ranking: Sequence[Passage], gold: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The judgement of one question: the first passage that holds a gold quote of its page.

    The question wants one fact, and pages that repeat it do not make it two: so recall@k is the share of questions
    whose fact is among the first k. A fact that no passage holds leaves a judgement that nothing can satisfy.
    """
    found = (p.chunk_id for p in ranking if holds(p.text, gold.get(p.document_id, ())))
    return {next(found, "no passage holds it"): 1} if gold else {}


def scores(ranking: Sequence[Passage], judgements: Mapping[str, int]) -> dict[str, Score]:
    """recall@k, nDCG@10 and MRR by trec_eval's own code. `ranking` is best first."""
    if not judgements:
        return dict.fromkeys(_SHOWN.values(), UNSCORED_NO_GOLD)
    run = {passage.chunk_id: float(len(ranking) - place) for place, passage in enumerate(ranking)}
    evaluator = pytrec_eval.RelevanceEvaluator({"q": dict(judgements)}, MEASURES)
    values = evaluator.evaluate({"q": run})["q"] if run else {}
    return {shown: Score(values.get(name, 0.0)) for name, shown in _SHOWN.items()}
