"""Metrics: counted once, by closed labels, in a registry of their own, and cheap enough for every request."""

import math
import timeit
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from app.records import AnswerCard, Bill, CardError, Outcome
from app.telemetry.metrics import BREAKER, Metrics
from graphs.errors import UpstreamError
from graphs.types import Usage


@dataclass
class Named:
    name: str


@dataclass
class Ended:
    target: Named
    number: int
    bill: Bill


USED = Usage(100, 20)


def ended(
    model: str = "big", outcome: Outcome = "ok", *, number: int = 1, code: str = "", usage: Usage = USED
) -> Ended:
    return Ended(Named(model), number, Bill(outcome, usage, 1_234, 250.0, 50.0 if outcome == "ok" else None, code))


@pytest.fixture
def metrics() -> Metrics:
    made = Metrics()
    made.know_models(["big", "small"])
    return made


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"pilothouse_{name}", labels)


def test_two_servers_in_one_process_count_apart(metrics: Metrics) -> None:
    metrics.attempt(ended())
    other = Metrics()
    other.know_models(["big"])
    assert value(metrics, "model_calls_total", model="big", outcome="ok") == 1
    assert value(other, "model_calls_total", model="big", outcome="ok") == 0


def test_an_attempt_counts_tokens_cost_and_times_of_its_model(metrics: Metrics) -> None:
    metrics.attempt(ended(usage=Usage(100, 20, cached_input_tokens=30)))
    metrics.attempt(ended(number=2))
    for direction, tokens in (("input", 200), ("output", 40), ("cached_input", 30)):
        assert value(metrics, "tokens_total", model="big", direction=direction) == tokens
    assert math.isclose(value(metrics, "cost_usd_total", model="big") or 0, 2 * 0.001234)
    assert value(metrics, "model_call_seconds_sum", model="big") == 0.5
    assert value(metrics, "first_token_seconds_bucket", model="big", le="0.05") == 2
    assert value(metrics, "model_retries_total", model="big") == 1
    assert value(metrics, "model_calls_total", model="small", outcome="ok") == 0


def test_a_failed_attempt_still_costs_and_is_no_latency(metrics: Metrics) -> None:
    metrics.attempt(ended(outcome="failed", code="upstream_timeout"))
    assert value(metrics, "model_calls_total", model="big", outcome="failed") == 1
    assert value(metrics, "model_errors_total", model="big", code="upstream_timeout") == 1
    assert value(metrics, "errors_total", at="model", kind="upstream") == 1
    assert value(metrics, "tokens_total", model="big", direction="input") == 100
    assert value(metrics, "model_call_seconds_count", model="big") == 0


def test_a_cached_answer_cost_nobody_tokens(metrics: Metrics) -> None:
    metrics.attempt(ended(outcome="cached"))
    assert value(metrics, "model_calls_total", model="big", outcome="cached") == 1
    assert value(metrics, "tokens_total", model="big", direction="input") == 0


def test_looks_into_the_caches_are_hits_by_kind_or_misses(metrics: Metrics) -> None:
    for found in ("exact", "exact", "semantic", "miss"):
        metrics.looked("default", found)
    assert value(metrics, "cache_hits_total", kind="exact") == 2
    assert value(metrics, "cache_hits_total", kind="semantic") == 1
    assert value(metrics, "cache_misses_total") == 1


def test_what_is_not_in_a_closed_set_is_other(metrics: Metrics) -> None:
    for number in range(50):
        metrics.attempt(ended(f"invented-{number}", "failed", code=f"invented-{number}"))
    assert value(metrics, "model_calls_total", model="other", outcome="failed") == 50
    assert value(metrics, "model_errors_total", model="other", code="other") == 50
    assert b"invented" not in metrics.text()[0]


def test_an_error_class_that_is_loaded_later_has_its_code(metrics: Metrics) -> None:
    class Later(UpstreamError):
        code = "later_than_the_metrics"

    metrics.attempt(ended(outcome="failed", code=Later.code))
    assert value(metrics, "model_errors_total", model="big", code="later_than_the_metrics") == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        *[(400, "invalid"), (413, "invalid"), (422, "invalid"), (401, "denied"), (403, "denied"), (404, "missing")],
        *[(409, "conflict"), (429, "exhausted"), (500, "internal"), (502, "upstream"), (503, "upstream")],
    ],
)
def test_a_refused_request_is_an_error_of_its_kind(metrics: Metrics, status: int, kind: str) -> None:
    metrics.request("/api/ai/chat", status, 0.004)
    assert value(metrics, "errors_total", at="request", kind=kind) == 1
    assert value(metrics, "requests_total", route="/api/ai/chat", status=f"{status // 100}xx") == 1
    assert value(metrics, "request_seconds_bucket", route="/api/ai/chat", le="0.005") == 1


def test_a_run_counts_by_how_it_ended(metrics: Metrics) -> None:
    card = AnswerCard(
        request_id="r", conversation_id="c", mode="rag", status="failed", created_at=datetime(2026, 11, 24, tzinfo=UTC)
    )
    error = CardError(kind="upstream", code="upstream_timeout", message="slow")
    metrics.run(card.model_copy(update={"error": error}))
    metrics.run(card.model_copy(update={"status": "completed"}))
    assert value(metrics, "runs_total", mode="rag", status="failed") == 1
    assert value(metrics, "runs_total", mode="rag", status="completed") == 1
    assert value(metrics, "errors_total", at="run", kind="upstream") == 1


def test_breaker_states_are_numbers_that_rise_with_the_trouble(metrics: Metrics) -> None:
    for state, number in BREAKER.items():
        metrics.gauges.breaker_is("big", state)
        assert value(metrics, "breaker_state", model="big") == number
    assert list(BREAKER.values()) == [0, 1, 2]


def test_an_observation_costs_microseconds() -> None:
    metrics = Metrics()
    metrics.know_models(["big"])
    attempt, times = ended(), 2_000
    for observe, most_us in ((lambda: metrics.attempt(attempt), 100), (lambda: metrics.request("/x", 200, 0.1), 50)):
        # Seven observations take 5 us and two 2 us on a quiet core; the bounds only keep look-ups and locks out.
        assert min(timeit.repeat(observe, number=times, repeat=3)) / times * 1e6 < most_us
