"""The scores that evals write, as routes read them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from app.services.gateway.scorecard import CHECK_S, Scorecard, ScorecardInvalid
from tests.services.gateway.chain import Clock

GOOD = {"models": {"big": {"rag": {"quality": 0.8, "n": 120}, "chat": {"quality": 1, "n": 3}}}, "commit": "abc"}


def write(path: Path, value: Any) -> Path:
    """Replaces the file as a careful writer does."""
    fresh = path.with_suffix(".new")
    fresh.write_text(value if isinstance(value, str) else json.dumps(value))
    os.replace(fresh, path)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "scorecard.json"


def test_it_gives_the_quality_of_a_model_at_a_task_and_none_for_what_was_never_measured(path: Path) -> None:
    card = Scorecard(write(path, GOOD))
    assert (card("big", "rag"), card("big", "chat"), card("big", "agent"), card("small", "rag")) == (
        0.8,
        1.0,
        None,
        None,
    )
    score = card.score("big", "rag")
    assert score is not None
    assert score.n == 120


def test_without_a_file_nothing_is_measured_until_evals_write_it(path: Path) -> None:
    clock = Clock()
    card = Scorecard(path, clock)
    assert card("big", "rag") is None
    write(path, GOOD)
    clock.now += CHECK_S
    assert card("big", "rag") == 0.8


def test_a_change_is_read_within_a_second_and_the_file_is_not_looked_at_more_often(path: Path) -> None:
    clock = Clock()
    card = Scorecard(write(path, GOOD), clock)
    write(path, {"models": {"big": {"rag": {"quality": 0.3, "n": 9}}}})
    assert card("big", "rag") == 0.8
    clock.now += CHECK_S
    assert card("big", "rag") == 0.3
    path.unlink()
    clock.now += CHECK_S
    assert card("big", "rag") is None


def test_a_file_that_breaks_later_keeps_the_scores_that_were_good(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    card = Scorecard(write(path, GOOD), clock)
    write(path, '{"models": {"big"')
    for _ in range(3):
        clock.now += CHECK_S
        assert card("big", "rag") == 0.8
    assert len(caplog.records) == 1  # once for each change, not for each look
    write(path, {"models": {"big": {"rag": {"quality": 0.5, "n": 9}}}})
    clock.now += CHECK_S
    assert card("big", "rag") == 0.5


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", "Expecting value"),
        ("[]", "the file"),
        ("{}", "models"),
        ({"models": {"big": {"cooking": {"quality": 0.5, "n": 1}}}}, "models.big.cooking"),
        ({"models": {"big": {"rag": {"quality": 1.5, "n": 1}}}}, "models.big.rag.quality"),
        ({"models": {"big": {"rag": {"quality": "0.5", "n": 1}}}}, "models.big.rag.quality"),
        ('{"models": {"big": {"rag": {"quality": NaN, "n": 1}}}}', "models.big.rag.quality"),
        ({"models": {"big": {"rag": {"quality": 0.5}}}}, "models.big.rag.n"),
        ({"models": {"big": {"rag": {"quality": 0.5, "n": 0}}}}, "models.big.rag.n"),
        ("[" * 100_000, "RecursionError|recursion"),
    ],
)
def test_a_malformed_file_is_refused_at_the_start_and_the_place_is_named(path: Path, value: Any, told: str) -> None:
    write(path, value)
    with pytest.raises(ScorecardInvalid, match=told) as raised:
        Scorecard(path)
    assert str(path) in raised.value.message


def test_a_file_that_is_no_text_is_refused(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ScorecardInvalid):
        Scorecard(path)
