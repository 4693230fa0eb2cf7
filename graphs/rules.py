"""Business rules: predicates over a whole answer, which operators write and name under `answers.rules`.

    @rule("no_discount_promises")
    def no_discount_promises(asked: Answered) -> str | None:
        return "promises a discount" if "% off" in asked.answer else None

A rule is plain Python of the operator's own. It runs in a thread beside the loop and is bounded in time, but cannot be
stopped: what it has begun goes on, and a regular expression that runs away holds the whole process.
"""

from collections.abc import Callable
from dataclasses import dataclass

from graphs.types import Passage


@dataclass(frozen=True, slots=True)
class Answered:
    """What a rule sees: the answer as it would leave, and the passages that it was written from."""

    answer: str
    question: str
    passages: tuple[Passage, ...] = ()


Predicate = Callable[[Answered], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """`fails` gives the reason why an answer may not leave, None for one that may."""

    name: str
    fails: Predicate


def rule(name: str) -> Callable[[Predicate], Rule]:
    """Make a rule of a predicate; verdicts and escalations show its name, the log its reason too."""
    return lambda fails: Rule(name, fails)
