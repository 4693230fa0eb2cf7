"""What a metric gives."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Score:
    """`value` None is unscored, and `reason` says why."""

    value: float | None
    reason: str = ""


UNSCORED_NO_GOLD = Score(None, "the dataset has no answer to it")


def mean(scores: Iterable[Score]) -> tuple[float | None, int]:
    """Mean of the scored ones and how many they were; None for none."""
    values = [score.value for score in scores if score.value is not None]
    return (sum(values) / len(values) if values else None), len(values)
