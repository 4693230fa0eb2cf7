"""Fewer passages that say the same: maximal marginal relevance."""

from collections.abc import Sequence

import numpy as np

from app.services.retrieval.embedder import Vectors


def diversify(scores: Sequence[float], vectors: Vectors, *, diversity: float, limit: int) -> list[int]:
    """Positions of up to `limit` candidates in the order chosen.

    Each next one has the greatest `(1 - diversity) * score - diversity * likeness`, its likeness being the cosine to
    the nearest one chosen before. `vectors` are unit rows, one for each score; ties keep the order given.

    Source: Carbonell and Goldstein, SIGIR 1998 (their lambda is 1 - diversity).
    """
    relevance = (1 - diversity) * np.asarray(scores, np.float64)
    likeness = np.zeros(len(scores))
    chosen: list[int] = []
    left = np.ones(len(scores), bool)
    while left.any() and len(chosen) < limit:
        gain = np.where(left, relevance - diversity * likeness, -np.inf)
        best = int(gain.argmax())
        chosen.append(best)
        left[best] = False
        cosines = vectors @ vectors[best]
        likeness = cosines if len(chosen) == 1 else np.maximum(likeness, cosines)
    return chosen
