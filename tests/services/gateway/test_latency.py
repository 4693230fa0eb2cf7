"""A percentile that is right within its buckets, follows what changes, and gives a slow model another chance."""

import random

import pytest

from app.services.gateway.latency import HALF_LIFE_CALLS, RATIO, STALE_S, Latency


def after(*took_ms: float, now: float = 0.0) -> Latency:
    latency = Latency()
    for each in took_ms:
        latency.note(each, now)
    return latency


def test_it_knows_nothing_before_the_first_call() -> None:
    assert (Latency().p95_ms, Latency().expected_ms(5.0)) == (None, None)


@pytest.mark.parametrize("took_ms", [0.0, 0.5, 1.0, 7.0, 80.0, 1_000.0, 30_000.0, 200_000.0])
def test_one_value_comes_back_within_a_bucket(took_ms: float) -> None:
    found = after(took_ms).p95_ms
    assert found is not None
    assert found == pytest.approx(max(took_ms, 1.0), rel=RATIO - 1)


def test_a_value_beyond_the_last_bucket_counts_as_the_longest() -> None:
    found = after(1e12).p95_ms
    assert found is not None
    assert found > 200_000


def test_it_is_the_95th_percentile_of_an_even_stream() -> None:
    seeded = random.Random(7)
    found = after(*(seeded.uniform(0, 1_000) for _ in range(5_000))).p95_ms
    assert found is not None
    assert 800 < found < 1_100


def test_it_follows_a_change_within_a_few_half_lives() -> None:
    latency = after(*[10.0] * 1_000)
    for _ in range(int(HALF_LIFE_CALLS * 5)):
        latency.note(500.0, 0.0)
    slow = latency.p95_ms
    assert slow == pytest.approx(500, rel=RATIO - 1)
    for _ in range(int(HALF_LIFE_CALLS * 5)):
        latency.note(10.0, 0.0)
    assert latency.p95_ms == pytest.approx(10, rel=RATIO - 1)


def test_it_stays_right_over_hundreds_of_thousands_of_calls() -> None:
    latency = Latency()
    for number in range(200_000):
        latency.note(20.0 if number % 10 else 100.0, 0.0)
    assert latency.p95_ms == pytest.approx(100, rel=RATIO - 1)


def test_a_model_that_nobody_calls_any_more_is_expected_to_have_become_faster() -> None:
    latency = after(800.0, now=100.0)
    p95_ms = latency.p95_ms
    assert p95_ms is not None
    assert latency.expected_ms(100.0 + STALE_S - 1) == p95_ms
    assert latency.expected_ms(100.0 + 3 * STALE_S) == p95_ms / 8
    latency.note(800.0, 100.0 + 3 * STALE_S)
    assert latency.expected_ms(100.0 + 3 * STALE_S) == pytest.approx(p95_ms)
