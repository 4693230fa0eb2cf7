"""How often a semantic cache is wrong, and how often it is there: false hits and hits by threshold, with and without the guard.

    python benchmarks/semantic_cache.py /work/shared/data

A question is asked of a cache that holds all others of its set. It is a false hit if the nearest one that passes has
another answer. The sets: `passages` (XQuAD: questions on one passage with other answers are hard), `handbook`, `edits`
(`semantic_pairs.jsonl`: each question with one whose one changed word changes the answer), and `claims` (SciFact: many
come with their opposite). `repeats` are the questions of `edits` in other words, where a hit is right.

Half of each set chooses the threshold, the other half reports it; `claims` only report. The guard's word lists were
written with `edits`, `repeats` and `passages` in view, so that of the four only `claims` and `handbook` are new to it.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.services.gateway.alike import alike
from app.services.gateway.semantic import CANDIDATES
from app.services.retrieval.embedder import MiniLmEmbedder
from evals.metrics.answers import normal

THRESHOLDS = (0.80, 0.85, 0.88, 0.90, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99)
MOST_FALSE = 0.01  # what the upper end of the interval may be, on the half that chooses
KEPT_HITS = 0.9  # of the most that the guard lets through
PAIRS = Path(__file__).with_name("semantic_pairs.jsonl")
HANDBOOK = Path(__file__).parents[1] / "evals/datasets/handbook.jsonl"

Guard = Callable[[str, str], bool]


Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Case:
    """A question, what a cache holds when it is asked, and which of that may be given. `half`: 0 chooses, 1 reports."""

    question: str
    near: tuple[tuple[str, float, bool], ...]  # the nearest held ones: text, cosine, whether its answer is right
    half: int

    def given(self, threshold: float, guard: Guard) -> bool | None:
        """Whether the answer given is right; None where the cache gives none."""
        for text, cosine, right in self.near:
            if cosine < threshold:
                return None
            if guard(self.question, text):
                return right
        return None


def interval(found: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a share, 95 %."""
    share, spread = found / n, z * z / n
    middle, wide = share + spread / 2, z * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    return max(0.0, (middle - wide) / (1 + spread)), min(1.0, (middle + wide) / (1 + spread))


def rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise SystemExit(f"{path} is not there; the argument names the folder with the public data")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def cases(
    asked: Sequence[str],
    held: Sequence[str],
    embedder: MiniLmEmbedder,
    right: Callable[[int, int], bool],
    half: Callable[[int], int],
    *,
    itself: bool,
) -> list[Case]:
    """Each asked question with the nearest held ones; `itself` leaves out the one at its own place."""
    mine: Vectors = embedder.embed_now(asked)
    cosines = mine @ (mine if asked is held else embedder.embed_now(held)).T
    if itself:
        np.fill_diagonal(cosines, -1)
    found = []
    for at, text in enumerate(asked):
        nearest = np.argsort(-cosines[at])[:CANDIDATES].tolist()
        found.append(Case(text, tuple((held[n], float(cosines[at, n]), right(at, n)) for n in nearest), half(at)))
    return found


def passages(data: Path, embedder: MiniLmEmbedder, name: str) -> list[Case]:
    asked = rows(data / f"qa/{name}.jsonl")
    golds = [normal(row["answers"][0]) for row in asked]
    texts = [row["question"] for row in asked]

    def same(one: int, other: int) -> bool:
        a, b = f" {golds[one]} ", f" {golds[other]} "
        return texts[one].strip() == texts[other].strip() or a in b or b in a

    return cases(texts, texts, embedder, same, lambda at: int(asked[at]["passage_id"][1:]) % 2, itself=True)


def claims(data: Path, embedder: MiniLmEmbedder) -> list[Case]:
    texts = list(dict.fromkeys(row["text"] for row in rows(data / "retrieval/scifact/queries.jsonl")))
    return cases(texts, texts, embedder, lambda one, other: False, lambda at: 1, itself=True)


def handbook(embedder: MiniLmEmbedder) -> list[Case]:
    asked = rows(HANDBOOK)
    texts = [row["question"] for row in asked]
    golds = [set(map(normal, row["answers"])) for row in asked]
    return cases(
        texts,
        texts,
        embedder,
        lambda one, other: bool(golds[one] & golds[other]),
        lambda at: int(asked[at]["split"] == "test"),
        itself=True,
    )


def pairs(embedder: MiniLmEmbedder, field: str) -> list[Case]:
    asked = rows(PAIRS)
    held = [row["question"] for row in asked]
    return cases(
        [row[field] for row in asked],
        held,
        embedder,
        lambda one, other: field == "same" and one == other,
        lambda at: at % 2,
        itself=False,
    )


def shares(found: Sequence[Case], threshold: float, guard: Guard) -> tuple[int, int, int]:
    """How many were answered rightly, wrongly, and how many there are."""
    given = [case.given(threshold, guard) for case in found]
    return given.count(True), given.count(False), len(given)


def show(count: int, n: int) -> str:
    low, high = interval(count, n)
    return f"{count / n:.3f} [{low:.3f}, {high:.3f}]"


def table(sets: dict[str, list[Case]], half: int, guard: Guard) -> pl.DataFrame:
    """False hits of each set by threshold, and the hits of `repeats`."""
    halves = {name: [case for case in found if case.half == half] for name, found in sets.items()}
    chosen = {name: found for name, found in halves.items() if found}
    lines = []
    for threshold in THRESHOLDS:
        line = {"threshold": f"{threshold:.2f}"}
        for name, found in chosen.items():
            right, wrong, n = shares(found, threshold, guard)
            line[f"{name} false, n={n}"] = show(wrong, n)
            if name == "repeats":
                line[f"{name} right"] = show(right, n)
        lines.append(line)
    return pl.DataFrame(lines)


def choose(sets: dict[str, list[Case]]) -> float:
    """The highest threshold that keeps most of the hits there are, of those whose false hits are surely few; on the half
    that chooses."""
    others = [case for name in ("passages", "handbook", "edits") for case in sets[name] if case.half == 0]
    repeats = [case for case in sets["repeats"] if case.half == 0]
    fit = [at for at in THRESHOLDS if interval(shares(others, at, alike)[1], len(others))[1] <= MOST_FALSE]
    hits = {at: shares(repeats, at, alike)[0] for at in fit}
    return max(at for at in fit if hits[at] >= KEPT_HITS * max(hits.values()))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    given = arguments.parse_args()
    embedder = MiniLmEmbedder()
    sets = {
        "passages": passages(given.data, embedder, "xquad_en"),
        "handbook": handbook(embedder),
        "edits": pairs(embedder, "other"),
        "claims": claims(given.data, embedder),
        "repeats": pairs(embedder, "same"),
    }
    guards: dict[str, Guard] = {"cosine alone": lambda _asked, _held: True, "with the guard": alike}
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=200, tbl_hide_dataframe_shape=True, fmt_str_lengths=40):
        for name, guard in guards.items():
            for half, does in enumerate(("choosing", "reporting")):
                print(f"{name}, the {does} half", table(sets, half, guard), sep="\n")
    chosen = choose(sets)
    others = [case for name in ("passages", "handbook", "edits", "claims") for case in sets[name] if case.half == 1]
    _, wrong, n = shares(others, chosen, alike)
    print(f"chosen threshold: {chosen}; false hits of all sets, the reporting half: {wrong} of {n}, {show(wrong, n)}")
    chinese = passages(given.data, embedder, "xquad_zh")
    for name, guard in guards.items():
        _, wrong, n = shares(chinese, 0.95, guard)
        print(f"the same questions in Chinese at 0.95, {name}: false {show(wrong, n)}, n={n}")
    embedder.close()


if __name__ == "__main__":
    main()
