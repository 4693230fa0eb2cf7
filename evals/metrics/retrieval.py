"""Retrieval against gold passages: a chunk is relevant if it holds a gold quote of the question."""

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


def relevant(passages: Sequence[Passage], document_id: str, quotes: Sequence[str]) -> dict[str, int]:
    """Judgements by chunk id. A quote that no chunk holds whole leaves a judgement that nothing can satisfy."""
    found = {p.chunk_id: 1 for p in passages if p.document_id == document_id and holds(p.text, quotes)}
    return found or {f"no chunk of {document_id} holds a quote": 1}


def scores(ranking: Sequence[Passage], judgements: Mapping[str, int]) -> dict[str, Score]:
    """recall@k, nDCG@10 and MRR by trec_eval's own code. `ranking` is best first."""
    if not judgements:
        return dict.fromkeys(_SHOWN.values(), UNSCORED_NO_GOLD)
    run = {passage.chunk_id: float(len(ranking) - place) for place, passage in enumerate(ranking)}
    evaluator = pytrec_eval.RelevanceEvaluator({"q": dict(judgements)}, MEASURES)
    values = evaluator.evaluate({"q": run})["q"] if run else {}
    return {shown: Score(values.get(name, 0.0)) for name, shown in _SHOWN.items()}
