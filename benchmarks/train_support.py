"""Trains and measures the guard's support score: how far a passage supports a sentence.

    python benchmarks/train_support.py --data DIR [--write]

Data: grounding/xquad_en.jsonl (derived from XQuAD, google-deepmind/xquad, CC BY-SA 4.0) and
grounding/scifact_train.jsonl (allenai/scifact: claims CC BY 4.0, abstracts ODC-By 1.0). Neither is committed; the
weights are our own statistics. A question and its answer become a statement by rules; sentences of passages with words
left out (supported) or with a number or name exchanged (not) stand for what a model writes when it copies badly. Split
by article and by claim: weights from train, the model's size and the threshold from dev, the table from held-out.
"""

import argparse
import asyncio
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sklearn.metrics import balanced_accuracy_score

from app.reading import Rarity, Reader
from app.scorer import Scorer
from app.services.guardrails.support import FEATURES, WEIGHTS_FILE, features
from app.services.retrieval.embedder import MiniLmEmbedder
from benchmarks.training import SEED, Article, articles, auroc, fit, fit_hidden, interval, rows, show, write
from graphs.sentences import split

SUPPORTED = frozenset({"gold", "SUPPORT", "shortened"})
KINDS = {  # what is set against what in the table
    "other passage of the article": ("gold", "other_passage_same_article"),
    "wrong answer, same passage": ("gold", "wrong_answer_same_passage"),
    "number or name exchanged": ("shortened", "exchanged"),
    "SciFact: contradiction": ("SUPPORT", "CONTRADICT"),
    "SciFact: not enough information": ("SUPPORT", "NOT_ENOUGH_INFO"),
}
_WH = re.compile(r"\b(how (?:many|much)|in what|what|which|who|whom|whose|when|where|how|why)\b", re.IGNORECASE)
_TELLING = re.compile(r"(?<=\w )(?:[A-Z][a-z]+(?: [A-Z][a-z]+)*|\d[\d,.]*\d|\d)")


@dataclass(frozen=True, slots=True)
class Case:
    claim: str
    passage: str
    kind: str
    group: str
    part: str


def statement(question: str, answer: str) -> str:
    """A question with its answer in the place of the question word: not good English, but the words of a claim."""
    body = question.strip().rstrip("?").strip()
    answer = answer.strip().rstrip(".")
    stated, found = _WH.subn(lambda match: answer, body, count=1)
    return (stated if found else f"{body} {answer}") + "."


def question_cases(data: Path, all_articles: list[Article]) -> Iterator[Case]:
    home = {text: article for article in all_articles for text in article.passages.values()}
    for row in rows(data / "grounding/xquad_en.jsonl"):
        article = home[row["context"]]
        yield Case(statement(row["question"], row["answer"]), row["context"], row["kind"], article.title, article.part)


def copied_cases(all_articles: list[Article]) -> Iterator[Case]:
    """Shortened and altered copies of the passages' own sentences."""
    rng = np.random.default_rng(SEED)
    for article in all_articles:
        telling = sorted({found for text in article.passages.values() for found in _TELLING.findall(text)})
        for text in article.passages.values():
            for start, end in split(text):
                sentence = text[start:end]
                spots = list(_TELLING.finditer(sentence))
                if len(sentence.split()) < 8 or not spots:
                    continue
                kept = [word for word in sentence.split() if word[:1].isupper() or rng.random() > 0.25]
                yield Case(" ".join(kept), text, "shortened", article.title, article.part)
                spot = spots[rng.integers(len(spots))]
                others = [x for x in telling if x != spot.group() and x[0].isdigit() == spot.group()[0].isdigit()]
                if others:
                    altered = sentence[: spot.start()] + others[rng.integers(len(others))] + sentence[spot.end() :]
                    kept = [word for word in altered.split() if word[:1].isupper() or rng.random() > 0.25]
                    yield Case(" ".join(kept), text, "exchanged", article.title, article.part)


def claim_cases(data: Path) -> Iterator[Case]:
    found = rows(data / "grounding/scifact_train.jsonl")
    claims = sorted({row["claim"] for row in found})
    np.random.default_rng(SEED).shuffle(claims)
    part = {claim: "train" if n < 450 else "dev" if n < 580 else "heldout" for n, claim in enumerate(claims)}
    for row in found:
        yield Case(row["claim"], row["context"], row["label"], row["claim"], part[row["claim"]])


async def measured_features(cases: list[Case]) -> np.ndarray:
    """Shape (cases, features)."""
    reader = Reader(MiniLmEmbedder(), keep=10_000)
    rarity = Rarity.load()
    out = []
    for at in range(0, len(cases), 64):
        some = cases[at : at + 64]
        claims, readings = await reader.read([case.claim for case in some], [case.passage for case in some])
        out += [features(claim, reading, rarity) for claim, reading in zip(claims, readings, strict=True)]
    return np.array(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="replace the committed weights")
    arguments = parser.parse_args()
    everything = articles(arguments.data)
    cases = [
        *question_cases(arguments.data, everything),
        *copied_cases(everything),
        *claim_cases(arguments.data),
    ]
    x = asyncio.run(measured_features(cases))
    y = np.array([case.kind in SUPPORTED for case in cases], dtype=np.int64)
    kinds = np.array([case.kind for case in cases])
    part = np.array([case.part for case in cases])
    groups = np.array([case.group for case in cases])

    def mean_auroc(score: np.ndarray, chosen: np.ndarray) -> float:
        return float(
            np.mean([auroc(y[m], score[m]) for m in (chosen & np.isin(kinds, pair) for pair in KINDS.values())])
        )

    train, dev, heldout = (part == name for name in ("train", "dev", "heldout"))
    candidates = {f"logistic, C={c}": fit(x[train], y[train], c=c) for c in (0.03, 0.3, 3.0)}
    for units in (8, 16):
        candidates[f"{units} hidden"] = fit_hidden(x[train], y[train], units=units, alpha=0.3)
    best, scorer = "", None
    for name, model in candidates.items():
        each = Scorer.parse(model | {"features": FEATURES}, FEATURES)
        value = mean_auroc(each.logit(x), dev)
        print(f"dev, mean AUROC over the kinds: {name:20} {value:.3f}")
        if scorer is None or value > mean_auroc(scorer.logit(x), dev):
            best, scorer = name, each
    assert scorer is not None
    score = scorer.probability(x)
    grid = np.arange(0.1, 0.9, 0.01)
    threshold = float(max(grid, key=lambda t: balanced_accuracy_score(y[dev], score[dev] >= t)))
    print(f"\nchosen on dev: {best}, threshold {threshold:.2f}\n\nheld-out")
    overlap = x[:, FEATURES.index("passage")]
    for name, pair in KINDS.items():
        m = np.flatnonzero(heldout & np.isin(kinds, pair))
        measured = {
            f"AUROC, {name}": lambda i: auroc(y[i], score[i]),
            "  by word overlap alone": lambda i: auroc(y[i], overlap[i]),
            "  balanced accuracy at the threshold": lambda i: balanced_accuracy_score(y[i], score[i] >= threshold),
        }
        for label, statistic in measured.items():
            show(label, interval(statistic, m, groups[m]), len(m))
    for name in sorted(set(kinds)):
        m = heldout & (kinds == name)
        print(f"share of {name:28} called supported: {np.mean(score[m] >= threshold):.2f}  n={m.sum()}")
    if arguments.write:
        sources = ["XQuAD (CC BY-SA 4.0), train articles", "SciFact (CC BY 4.0, ODC-By 1.0), train claims"]
        write(
            WEIGHTS_FILE,
            {"threshold": round(threshold, 2), "support": {"features": FEATURES} | candidates[best]},
            sources,
        )


if __name__ == "__main__":
    main()
