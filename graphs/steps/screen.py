"""The first station: what the guard thinks of the question."""

from typing import Literal, TypedDict

from langgraph.runtime import Runtime

from graphs.context import RunContext
from graphs.steps.outcome import Outcome, Validation
from graphs.types import Verdict


class ScreenUpdate(TypedDict, total=False):
    question: str
    input_verdicts: tuple[Verdict, ...]
    blocked: bool
    answer: str
    answered: bool
    validation: Validation


async def screen(state: Outcome, runtime: Runtime[RunContext]) -> ScreenUpdate:
    """Give the question as it may go on; a block ends the run with the tenant's safe answer."""
    question, verdicts = await runtime.context.guard.screen(state["question"])
    if any(verdict.action == "block" for verdict in verdicts):
        return {
            "input_verdicts": verdicts,
            "blocked": True,
            "answer": runtime.context.guard.safe_answer,
            "answered": False,
            "validation": "blocked",
        }
    return {"question": question, "input_verdicts": verdicts, "blocked": False}


def passed(state: Outcome) -> Literal["go", "stop"]:
    return "stop" if state.get("blocked") else "go"
