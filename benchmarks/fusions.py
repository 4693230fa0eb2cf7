"""Ways of making one ranking of two legs, to be measured against each other; the product's own is `fuse`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from app.services.retrieval.fuse import fuse
from app.services.retrieval.legs import Legs

Ranking = Sequence[tuple[str, float]]
Way = Callable[[Legs], Ranking]

CANDIDATES = 100


def reciprocal(legs: Legs, dense_weight: float, k: int = 60) -> Ranking:
    """Weighted reciprocal rank fusion over the first CANDIDATES of each leg."""
    scores: dict[str, float] = {}
    for weight, leg in ((dense_weight, legs.cosines), (1 - dense_weight, legs.bm25)):
        for rank, key in enumerate(sorted(leg, key=lambda key, leg=leg: (-leg[key], key))[:CANDIDATES], 1):
            scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return list(scores.items())


def spread(legs: Legs, dense_weight: float) -> Ranking:
    """Each leg stretched to [0, 1] over this call's candidates, then the weighted mean."""
    low, high = min(legs.cosines.values(), default=0.0), max(legs.cosines.values(), default=1.0)
    top = max(legs.bm25.values(), default=1.0)
    return [
        (key, dense_weight * (cosine - low) / ((high - low) or 1) + (1 - dense_weight) * legs.bm25.get(key, 0) / top)
        for key, cosine in legs.cosines.items()
    ]


def standard(legs: Legs, dense_weight: float) -> Ranking:
    """Each leg in standard deviations from its own mean, then the weighted mean; no word counts as a BM25 of 0."""
    keys = list(legs.cosines)

    def scaled(leg: Mapping[str, float]) -> np.ndarray:
        values = np.array([leg.get(key, 0.0) for key in keys])
        return (values - values.mean()) / (values.std() or 1)

    mixed = dense_weight * scaled(legs.cosines) + (1 - dense_weight) * scaled(legs.bm25)
    return list(zip(keys, mixed.tolist(), strict=True))


LEGS: dict[str, Way] = {
    "vectors": lambda legs: [(key, cosine) for key, cosine in legs.cosines.items() if legs.ranks[key][0]],
    "words": lambda legs: list(legs.bm25.items()),
}
FUSIONS: dict[str, Way] = {
    **{f"rrf {w}": lambda legs, w=w: reciprocal(legs, w) for w in (0.5, 0.7)},
    **{f"spread {w}": lambda legs, w=w: spread(legs, w) for w in (0.4, 0.5, 0.6, 0.7)},
    **{f"standard {w}": lambda legs, w=w: standard(legs, w) for w in (0.4, 0.5, 0.6, 0.7)},
    **{f"fuse {w}": lambda legs, w=w: fuse(legs.cosines, legs.bm25, dense_weight=w) for w in (0.4, 0.5, 0.6, 0.7, 0.8)},
}
