"""The rankings of several wordings of one question into one."""

from collections.abc import Sequence
from typing import Final

from graphs.policy import Fusion

Order = list[tuple[str, float]]

K: Final = 60


def merge(rankings: Sequence[Order], how: Fusion) -> Order:
    """Ids with their scores in [0, 1], best first; ties by id. One ranking stays as it is.

    `best` gives an id the best of its scores. `rrf` gives it the sum of 1 / (60 + rank) over the rankings that hold it,
    rank from 1, as a share of what the first place in all of them would have.

    Source of rrf: Cormack, Clarke and Buettcher, SIGIR 2009.
    """
    if len(rankings) == 1:
        return rankings[0]
    merged = dict[str, float]()
    for ranking in rankings:
        for rank, (key, score) in enumerate(ranking, 1):
            if how == "best":
                merged[key] = max(score, merged.get(key, 0.0))
            else:
                merged[key] = merged.get(key, 0.0) + (K + 1) / (K + rank) / len(rankings)
    return sorted(merged.items(), key=lambda item: (-item[1], item[0]))
