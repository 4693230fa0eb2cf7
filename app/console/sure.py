"""A sheet that says what will happen before anything does."""

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from app.console.advice import Advice
from app.console.view import draw

STOP_JOB: Final = (
    "It stops within seconds, or never begins. What is done of it stays; what is left is not kept, and cannot be tried "
    "again from here."
)


def sure(
    question: str, *happens: str, act: str, label: str, what: str = "", about: str = "", danger: bool = False
) -> Markup:
    """Its button raises `act` with `what`."""
    return _drawn(question, happens, act=act, label=label, what=what, about=about, danger=danger)


def sorry(advice: Advice) -> Markup:
    """The same, where there is nothing to do but to read."""
    return _drawn(advice.title, [text for text in (advice.todo, advice.detail) if text])


def _drawn(
    question: str,
    happens: Sequence[str],
    *,
    act: str = "",
    label: str = "",
    what: str = "",
    about: str = "",
    danger: bool = False,
) -> Markup:
    return draw("sure", question=question, happens=happens, act=act, label=label, what=what, about=about, danger=danger)


def stop_job(job_id: str, about: str) -> Markup:
    return sure("Cancel this job?", STOP_JOB, act="off", label="Cancel the job", what=job_id, about=about, danger=True)
