"""The table of a suite: what failed is unscored, what was answered by both is compared in pairs."""

from typing import Any

import polars as pl
import pytest

from evals.run import METRICS, summary
from evals.suites import Suite

SUITE = Suite("s", "d", "rag", ("new", "old"), "old")


def row(case: str, model: str, **known: Any) -> dict[str, Any]:
    blank: dict[str, Any] = dict.fromkeys(METRICS[:-2])
    return blank | {"id": case, "model": model, "answerable": True, "status": "completed", "answered": True} | known


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None)


def test_a_run_that_failed_counts_neither_as_answered_nor_as_refused() -> None:
    table = summary(frame(row("a", "new"), row("b", "new", status="failed", answered=False)), SUITE)
    answered = table["answered_answerable"]["new"]
    assert answered is not None
    assert (answered.mean, answered.n) == (1.0, 1)
    assert table["refused_unanswerable"]["new"] is None


def test_the_difference_is_taken_case_by_case_where_both_were_scored() -> None:
    table = summary(
        frame(
            row("a", "new", token_f1=0.5),
            row("a", "old", token_f1=0.25),
            row("b", "new", token_f1=1.0),
            row("b", "old", status="failed"),
        ),
        SUITE,
    )
    difference = table["token_f1"]["difference"]
    assert difference is not None
    assert (difference.mean, difference.n) == (pytest.approx(0.25), 1)
