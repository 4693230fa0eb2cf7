"""The ingest gate: whether a new build finds what it should, as fast as it should, at the size it should.

Golden questions say what should be found. A build is judged against fixed bounds and against the live build, which is
asked the same questions in the same minutes; where that one cannot be asked, since another embedder made it, the fixed
bounds decide alone.
"""

import json
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.services.retrieval.commit import guarded
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.versions import parsed
from app.sight import EVERYTHING
from graphs.errors import Conflict
from graphs.types import Passage

LOOKS = 3  # for each question; the quickest is its time, since the first also loads the index


@dataclass(frozen=True, slots=True)
class Golden:
    """A question and a document that answers it; with `passage`, only its chunks that hold that text count.

    Several with the same question are several right answers to it.
    """

    question: str
    document_id: str
    passage: str = ""

    def is_met_by(self, found: Passage) -> bool:
        return found.document_id == self.document_id and _plain(self.passage) in _plain(found.text)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What a build must hold. Recall and nDCG are means over the questions, in [0, 1]."""

    k: int = 10
    min_questions: int = 1
    min_recall: float = 0.0
    min_ndcg: float = 0.0
    max_recall_drop: float = 0.02  # below the live build's
    max_ndcg_drop: float = 0.02
    max_latency_ratio: float = 1.5  # of the median search to the live build's
    latency_slack_ms: float = 5.0  # forgiven on top: small collections answer in less time than clocks wobble
    max_size_ratio: float = 2.0  # of the bytes on disk to the live build's


@dataclass(frozen=True, slots=True)
class Measures:
    recall: float
    ndcg: float
    latency_ms: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """`live` is None where the live build could not be asked; `failures` name each bound that does not hold."""

    version: str
    questions: int
    candidate: Measures
    live: Measures | None
    failures: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def summary(self) -> dict[str, Any]:
        return asdict(self) | {"failures": list(self.failures)}

    @classmethod
    def parsed(cls, summary: str) -> "Report":
        """The report of a summary that was written as JSON."""
        told = json.loads(summary)
        live = None if told["live"] is None else Measures(**told["live"])
        measures = {"candidate": Measures(**told["candidate"]), "live": live}
        return cls(**told | measures | {"failures": tuple(told["failures"])})


async def judge(
    library: Library, place: Place, candidate: str, golden: Sequence[Golden], thresholds: Thresholds
) -> Report:
    """Ask both builds and compare. Raises what a search raises."""
    answers = dict[str, list[Golden]]()
    for each in golden:
        answers.setdefault(each.question, []).append(each)
    new = await _measured(library, place, candidate, answers, thresholds.k)
    try:
        # By its name, as the candidate is asked: a search of the newest version finds its table already open.
        now = await library.version(place.tenant_id, place.collection)
        live = await _measured(library, place, now, answers, thresholds.k)
    except Conflict:
        live = None
    return Report(candidate, len(answers), new, live, tuple(_failures(len(answers), new, live, thresholds)))


async def _measured(
    library: Library, place: Place, version: str, answers: Mapping[str, Sequence[Golden]], k: int
) -> Measures:
    table = await library.shelf.open(place, parsed(version, place.collection)[0])
    size_bytes = int((await guarded(table.stats()))["total_bytes"])
    recalls, gains, times = list[float](), list[float](), list[float]()
    for question, right in answers.items():
        looks = list[float]()
        for _ in range(LOOKS):
            begun = time.perf_counter()
            found = await library.search(
                place.tenant_id, place.collection, question, max(k, 10), as_of=version, sight=EVERYTHING
            )
            looks.append((time.perf_counter() - begun) * 1e3)
        times.append(min(looks))
        met = _met(found.passages, right)
        recalls.append(sum(met[:k]) / len(right))
        gains.append(_ndcg(met[:10], len(right)))
    if not answers:
        return Measures(0.0, 0.0, 0.0, size_bytes)
    return Measures(statistics.mean(recalls), statistics.mean(gains), statistics.median(times), size_bytes)


def _met(found: Sequence[Passage], right: Sequence[Golden]) -> list[int]:
    """For each passage how many right answers it is the first to give: 0, or 1 and rarely more."""
    open_, met = list(right), list[int]()
    for passage in found:
        given = [each for each in open_ if each.is_met_by(passage)]
        open_ = [each for each in open_ if each not in given]
        met.append(len(given))
    return met


def _ndcg(met: Sequence[int], right: int) -> float:
    """Binary gains over the best order of `right` answers, ten places deep."""
    gained = sum(min(hits, 1) / math.log2(place + 1) for place, hits in enumerate(met, 1))
    return gained / sum(1 / math.log2(place + 1) for place in range(1, min(right, 10) + 1))


def _failures(questions: int, new: Measures, live: Measures | None, bounds: Thresholds) -> list[str]:
    checks = [
        (questions >= bounds.min_questions, f"{questions} golden questions, at least {bounds.min_questions} are asked"),
        (new.recall >= bounds.min_recall, f"recall@{bounds.k} {new.recall:.3f} is below {bounds.min_recall}"),
        (new.ndcg >= bounds.min_ndcg, f"nDCG@10 {new.ndcg:.3f} is below {bounds.min_ndcg}"),
    ]
    if live is not None:
        slowest = live.latency_ms * bounds.max_latency_ratio + bounds.latency_slack_ms
        largest = live.size_bytes * bounds.max_size_ratio
        checks += [
            (
                new.recall >= live.recall - bounds.max_recall_drop,
                f"recall@{bounds.k} {new.recall:.3f} falls from {live.recall:.3f}",
            ),
            (new.ndcg >= live.ndcg - bounds.max_ndcg_drop, f"nDCG@10 {new.ndcg:.3f} falls from {live.ndcg:.3f}"),
            (new.latency_ms <= slowest, f"a search takes {new.latency_ms:.1f} ms, at most {slowest:.1f} are allowed"),
            (new.size_bytes <= largest, f"{new.size_bytes:,} bytes, at most {largest:,.0f} are allowed"),
        ]
    return [said for holds, said in checks if not holds]


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
