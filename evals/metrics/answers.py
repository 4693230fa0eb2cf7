"""Answers against gold answers: overlap of words, and Ragas' metrics that need no judge."""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from evals.metrics.score import UNSCORED_NO_GOLD, Score

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normal(text: str) -> str:
    """Lower case, without punctuation and articles. Source: the SQuAD evaluation script (Rajpurkar et al. 2016)."""
    return " ".join(_ARTICLES.sub(" ", text.casefold().translate(_PUNCTUATION)).split())


def token_f1(answer: str, golds: Sequence[str]) -> Score:
    """F1 over words with the best gold answer, in [0, 1]; a whole quoted sentence cannot reach 1 on a short gold."""
    if not golds:
        return UNSCORED_NO_GOLD
    return Score(max(_f1(normal(answer).split(), normal(gold).split()) for gold in golds))


def _f1(said: Sequence[str], gold: Sequence[str]) -> float:
    common = sum((Counter(said) & Counter(gold)).values())
    if not common:
        return 0.0
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall)


def holds_answer(answer: str, golds: Sequence[str]) -> Score:
    """1 if a gold answer stands in the answer, after normalisation; 0 if none does."""
    if not golds:
        return UNSCORED_NO_GOLD
    said = f" {normal(answer)} "
    return Score(float(any(f" {normal(gold)} " in said for gold in golds)))


@cache
def _ragas() -> dict[str, Any]:
    # Importing Ragas takes seconds and 200 MB, which only a run that scores answers should pay.
    from ragas.metrics.collections import NonLLMStringSimilarity, StringPresence

    return {"string_presence": StringPresence(), "string_similarity": NonLLMStringSimilarity()}


async def ragas_scores(answer: str, golds: Sequence[str]) -> dict[str, Score]:
    """Ragas' string presence and Levenshtein similarity with the best gold answer; NaN is unscored."""
    if not golds:
        return dict.fromkeys(("ragas_string_presence", "ragas_string_similarity"), UNSCORED_NO_GOLD)
    scores = {}
    for name, metric in _ragas().items():
        values = [float((await metric.ascore(reference=gold, response=answer or " ")).value) for gold in golds]
        known = [value for value in values if not math.isnan(value)]
        scores[f"ragas_{name}"] = Score(max(known)) if known else Score(None, "Ragas gave NaN")
    return scores
