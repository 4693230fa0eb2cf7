"""What the training scripts share: data, splits by article, fits, intervals, the weights file.

No figure that is reported comes from a part that chose anything: weights come from train, thresholds from dev, tables
from held-out.
"""

import json
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

SEED = 7
PARTS = (("train", 26), ("dev", 8), ("heldout", 14))  # articles of the 48
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Article:
    title: str
    part: str
    passages: dict[str, str]


def rows(path: Path) -> list[dict[str, Any]]:
    """Lines of a JSONL file; says so when the data folder lacks it."""
    if not path.exists():
        raise SystemExit(f"{path} is not there; --data names the folder with the public data")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def articles(data: Path) -> list[Article]:
    """XQuAD's articles, each in one part."""
    grouped: dict[str, dict[str, str]] = {}
    for row in rows(data / "retrieval/xquad_en/corpus.jsonl"):
        grouped.setdefault(row["title"], {})[row["_id"]] = row["text"]
    titles = sorted(grouped)
    np.random.default_rng(SEED).shuffle(titles)
    parts = [name for name, count in PARTS for _ in range(count)]
    return [Article(title, part, grouped[title]) for title, part in zip(titles, parts, strict=True)]


def fit(x: Array, y: NDArray[np.int64], weight: Array | None = None, *, c: float = 1.0) -> dict[str, Any]:
    """Logistic regression on standardised features, as a part of a weights file."""
    scaler = StandardScaler().fit(x)
    model = LogisticRegression(C=c, max_iter=5_000).fit(scaler.transform(x), y, sample_weight=weight)
    return _part(scaler, [(model.coef_.T, model.intercept_)])


def fit_hidden(x: Array, y: NDArray[np.int64], *, units: int, alpha: float, seeds: int = 3) -> dict[str, Any]:
    """A mean of small tanh networks with different seeds, written as one wider network."""
    scaler = StandardScaler().fit(x)
    scaled = scaler.transform(x)
    nets = [
        MLPClassifier(
            (units,), activation="tanh", alpha=alpha, max_iter=400, early_stopping=True, random_state=SEED + n
        ).fit(scaled, y)
        for n in range(seeds)
    ]
    first = (np.hstack([net.coefs_[0] for net in nets]), np.hstack([net.intercepts_[0] for net in nets]))
    last = (
        np.vstack([net.coefs_[1] for net in nets]) / seeds,
        np.mean([net.intercepts_[1] for net in nets], axis=0),
    )
    return _part(scaler, [first, last])


def _part(scaler: StandardScaler, layers: Sequence[tuple[Array, Array]]) -> dict[str, Any]:
    return {
        "mean": _rounded(scaler.mean_),
        "scale": _rounded(scaler.scale_),
        "layers": [{"weights": _rounded(weights), "bias": _rounded(bias)} for weights, bias in layers],
    }


def _rounded(values: Array) -> Any:
    return np.round(values, 5).tolist()


def interval(
    statistic: Callable[[NDArray[np.int64]], float],
    chosen: NDArray[np.int64],
    groups: Sequence[str],
    *,
    draws: int = 1_000,
) -> tuple[float, float, float]:
    """A statistic of row numbers with its 95 % bootstrap interval, resampling whole groups (articles, claims).

    `groups` has the group of each of the `chosen` rows.
    """
    members: dict[str, list[int]] = {}
    for index, group in zip(chosen.tolist(), groups, strict=True):
        members.setdefault(group, []).append(index)
    names = list(members)
    rng = np.random.default_rng(SEED)
    values = []
    for _ in range(draws):
        drawn = rng.integers(0, len(names), len(names))
        value = statistic(np.array([index for name in drawn for index in members[names[name]]]))
        if not np.isnan(value):
            values.append(value)
    low, high = np.percentile(values, [2.5, 97.5])
    return statistic(chosen), float(low), float(high)


def auroc(y: NDArray[np.int64], score: Array) -> float:
    """Area under the ROC curve; nan when a resample holds one class only."""
    return float(roc_auc_score(y, score)) if 0 < y.sum() < len(y) else float("nan")


def show(name: str, measured: tuple[float, float, float], n: int) -> None:
    value, low, high = measured
    print(f"{name:58} {value:.3f}  [{low:.3f}, {high:.3f}]  n={n}")


def write(path: Path, weights: dict[str, Any], sources: Iterable[str]) -> None:
    """Write a weights file with where it comes from."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    provenance = {
        "script": f"benchmarks/train_{path.stem.removesuffix('_weights')}.py",
        "made_at": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "seed": SEED,
        "sources": list(sources),
    }
    path.write_text(json.dumps({"provenance": provenance} | weights, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path} ({path.stat().st_size:,} bytes)")
