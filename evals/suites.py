"""What is evaluated: a dataset, the mode it is asked in, and the models that are compared on it."""

from dataclasses import dataclass
from typing import Final

from app.records import Mode
from graphs.errors import Missing


@dataclass(frozen=True, slots=True)
class Suite:
    """`baseline` is the model that the others are compared with, case by case."""

    name: str
    dataset: str
    mode: Mode
    models: tuple[str, ...]
    baseline: str


SUITES: Final = {
    suite.name: suite
    for suite in (
        Suite("handbook", "handbook", "rag", ("extractive", "smollm2-135m-instruct"), "smollm2-135m-instruct"),
        # What people type that is no question: it wants a refusal, not a quoted sentence.
        Suite("messages", "messages", "rag", ("extractive", "smollm2-135m-instruct"), "smollm2-135m-instruct"),
    )
}


def suite(name: str) -> Suite:
    """Raises Missing."""
    if name not in SUITES:
        raise Missing(f"there is no suite {name}; there are: {', '.join(sorted(SUITES))}")
    return SUITES[name]
