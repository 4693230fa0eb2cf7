import time

import pytest

from graphs.words import identifiers, numbers, stem, stems


def test_inflections_meet_in_one_stem() -> None:
    for group in (
        "rotate rotates rotated rotating rotation",
        "policy policies",
        "expire expired expires expiry",
        "stop stopped",
    ):
        assert len({stem(word) for word in group.split()}) == 1, group


def test_words_that_say_nothing_have_no_stem() -> None:
    assert stems("What is the key of a tenant?") == [stem("key"), stem("tenant")]


def test_numbers_compare_whatever_their_spelling() -> None:
    assert numbers("four of 1,200 and 3.5") == {"4", "1200", "3.5"}


def test_names_are_found_in_all_their_shapes() -> None:
    text = "Set PILOTHOUSE_HOME, call /api/ai/chat with --stream; see run.started, HTTP429 and `make run`."
    assert {"pilothouse_home", "/api/ai/chat", "--stream", "run.started", "http429", "make run"} <= identifiers(text)


@pytest.mark.parametrize("letter", ["a", "A", "1", "a1", "A1", "_a", "-"])
def test_v08_letters_without_end_are_looked_at_a_bounded_number_of_times(letter: str) -> None:
    began = time.process_time()
    identifiers(letter * (20_000 // len(letter)) + "!")
    assert time.process_time() - began < 5  # unbounded parts took 18 s
