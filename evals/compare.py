"""Paired comparison of two models on the same cases."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95% interval over `n` cases."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(values: Sequence[float], *, seed: int = 0) -> Interval:
    """Percentile bootstrap of the mean over cases. Needs at least one value."""
    sample = np.asarray(values, dtype=np.float64)
    draws = np.random.default_rng(seed).integers(0, len(sample), (RESAMPLES, len(sample)))
    low, high = np.quantile(sample[draws].mean(axis=1), [0.025, 0.975])
    return Interval(float(sample.mean()), float(low), float(high), len(sample))


def difference(
    candidate: Sequence[float | None], baseline: Sequence[float | None], *, seed: int = 0
) -> Interval | None:
    """Mean of candidate minus baseline over the cases that both were scored on; None if there is none."""
    pairs = [(a, b) for a, b in zip(candidate, baseline, strict=True) if a is not None and b is not None]
    return bootstrap([a - b for a, b in pairs], seed=seed) if pairs else None
