"""How well the committed support score separates what a passage supports from what it does not; nothing is trained here.

    python benchmarks/support.py --data DIR

Only held-out articles of XQuAD and held-out claims of SciFact, which chose neither weights nor threshold
(train_support.py has the split). XQuAD's questions become statements by rules; in Chinese, of which nothing was trained
on, the answer follows the question. Against another passage word overlap alone is nearly perfect: only a wrong answer
from the same passage and a contradiction say anything. Intervals are 95 % bootstraps over articles or claims.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sklearn.metrics import balanced_accuracy_score

from app.services.guardrails.support import SupportModel
from app.services.retrieval.embedder import MiniLmEmbedder
from benchmarks.train_support import Case, claim_cases, question_cases
from benchmarks.training import Article, articles, auroc, interval, rows, show
from graphs.types import Passage

SUPPORTED = frozenset({"gold", "SUPPORT"})
OTHER, WRONG = "other_passage_same_article", "wrong_answer_same_passage"
SETS = {
    "XQuAD en, other passage": ("en", "gold", OTHER),
    "XQuAD en, wrong answer, same passage": ("en", "gold", WRONG),
    "XQuAD zh, other passage": ("zh", "gold", OTHER),
    "XQuAD zh, wrong answer, same passage": ("zh", "gold", WRONG),
    "SciFact, contradiction": ("sci", "SUPPORT", "CONTRADICT"),
    "SciFact, not enough information": ("sci", "SUPPORT", "NOT_ENOUGH_INFO"),
}


def chinese_cases(data: Path, home: Mapping[str, Article]) -> Iterator[Case]:
    """`home` has the article of each question by its id: the translations keep those of the English."""
    for row in rows(data / "grounding/xquad_zh.jsonl"):
        article = home[_question(row)]
        question = row["question"].rstrip("?\uff1f ")
        claim = f"{question} {row['answer']}\u3002"
        yield Case(claim, row["context"], row["kind"], article.title, article.part)


def _question(row: Mapping[str, Any]) -> str:
    """The question's id, the same in both languages; each row of it has an ending of its own."""
    return str(row["id"]).rpartition("_")[0]


def heldout(data: Path) -> dict[str, list[Case]]:
    everything = articles(data)
    by_text = {text: article for article in everything for text in article.passages.values()}
    by_id = {_question(row): by_text[row["context"]] for row in rows(data / "grounding/xquad_en.jsonl")}
    found = {
        "en": question_cases(data, everything),
        "zh": chinese_cases(data, by_id),
        "sci": claim_cases(data),
    }
    return {name: [case for case in cases if case.part == "heldout"] for name, cases in found.items()}


async def scores(model: SupportModel, cases: Sequence[Case]) -> np.ndarray:
    """Support of each case's claim by its passage."""
    out = []
    for case in cases:
        passage = Passage("", "", "", case.passage, 0, len(case.passage), 1.0, "")
        out.append((await model.score([case.claim], [passage]))[0][0])
    return np.array(out)


def report(name: str, kinds: tuple[str, str], cases: Sequence[Case], score: np.ndarray, threshold: float) -> None:
    kept = np.array([index for index, case in enumerate(cases) if case.kind in kinds])
    y = np.array([case.kind in SUPPORTED for case in cases], dtype=np.int64)
    groups = [cases[index].group for index in kept]
    show(f"AUROC, {name}", interval(lambda i: auroc(y[i], score[i]), kept, groups), len(kept))
    balanced = interval(lambda i: balanced_accuracy_score(y[i], score[i] >= threshold), kept, groups)
    show("  balanced accuracy at the threshold", balanced, len(kept))
    for kind in kinds:
        chosen = [index for index in kept if cases[index].kind == kind]
        print(f"  share of {kind} called supported: {np.mean(score[chosen] >= threshold):.2f}  n={len(chosen)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    cases = heldout(parser.parse_args().data)
    model = SupportModel(MiniLmEmbedder())
    found = {name: asyncio.run(scores(model, some)) for name, some in cases.items()}
    print(f"threshold {model.threshold}; an answerless guess has AUROC 0.5 and balanced accuracy 0.5\n")
    for name, (source, *kinds) in SETS.items():
        report(name, (kinds[0], kinds[1]), cases[source], found[source], model.threshold)


if __name__ == "__main__":
    main()
