"""Metrics over HTTP: to whom, in which format, and that no label has an end that a caller could move."""

import re
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api.public import is_open_to
from tests.api.served import Served

CANARY = "canary-3f9a"


def scraped(client: httpx.Client, **headers: str) -> dict[str, float]:
    """Every sample by its name and labels."""
    answer = client.get("/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def grown(before: dict[str, float], after: dict[str, float], name: str, **labels: str) -> float:
    place = f"pilothouse_{name}{sorted(labels.items())}"
    return after.get(place, 0.0) - before.get(place, 0.0)


def test_what_was_asked_and_answered_is_counted(nobody: httpx.Client, ann: httpx.Client) -> None:
    before = scraped(nobody)
    assert ann.post("/api/ai/chat", json={"message": "say hello there"}).status_code == 200
    assert (
        ann.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "say x"}]}).status_code == 200
    )
    assert ann.get("/api/ai/runs/" + "0" * 32).status_code == 404
    after = scraped(nobody)
    assert grown(before, after, "requests_total", route="/api/ai/chat", status="2xx") == 1
    assert grown(before, after, "requests_total", route="/v1/chat/completions", status="2xx") == 1
    assert grown(before, after, "requests_total", route="/api/ai/runs/{request_id}", status="4xx") == 1
    assert grown(before, after, "request_seconds_count", route="/api/ai/chat") == 1
    assert grown(before, after, "errors_total", at="request", kind="missing") == 1
    assert grown(before, after, "runs_total", mode="chat", status="completed") == 1
    assert grown(before, after, "model_calls_total", model="scripted", outcome="ok") == 2
    assert grown(before, after, "model_call_seconds_count", model="scripted") == 2
    assert grown(before, after, "first_token_seconds_count", model="scripted") == 2
    assert grown(before, after, "tokens_total", model="scripted", direction="output") > 2


def test_a_run_that_fails_counts_as_an_error_of_the_run_and_of_the_model(
    nobody: httpx.Client, ann: httpx.Client
) -> None:
    before = scraped(nobody)
    ann.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "fail"}]})
    after = scraped(nobody)
    assert grown(before, after, "model_errors_total", model="scripted", code="upstream_error") >= 1
    assert grown(before, after, "errors_total", at="model", kind="upstream") >= 1
    assert grown(before, after, "errors_total", at="request", kind="upstream") == 1


def test_what_a_caller_sends_never_becomes_a_label(nobody: httpx.Client, ann: httpx.Client) -> None:
    before = nobody.get("/metrics").text
    for path in (f"/{CANARY}", f"/v1/{CANARY}", f"/v1/models/{CANARY}", f"/api/ai/runs/{CANARY}", f"/console/{CANARY}"):
        ann.get(path)
        nobody.get(path)
    ann.post("/v1/chat/completions", json={"model": CANARY, "messages": [{"role": "user", "content": CANARY}]})
    ann.post("/api/ai/chat", json={"message": f"say {CANARY}", "model": CANARY})
    ann.request(CANARY.upper(), "/api/ai/chat")
    after = nobody.get("/metrics").text
    assert CANARY not in after.lower()
    assert not re.search(r"acme|umbrella|\bann\b|\bph_", after)
    routes = set(re.findall('route="([^"]*)"', after)) - set(re.findall('route="([^"]*)"', before))
    assert routes <= {"other", "/v1/models/*", "/v1/chat/completions", "/api/ai/chat", "/console"} | {
        "/api/ai/runs/{request_id}"
    }


def test_the_gauges_say_how_the_server_is(nobody: httpx.Client) -> None:
    found = scraped(nobody)
    assert found["pilothouse_breaker_state[('model', 'scripted')]"] == 0
    for name in ("requests_running", "requests_waiting", "ledger_commits_waiting", "alerts_unread"):
        assert found[f"pilothouse_{name}[]"] >= 0
    assert found["process_resident_memory_bytes[]"] > 1e6
    assert not any(name.endswith("_created[]") for name in found)


def test_a_scraper_may_ask_for_openmetrics(nobody: httpx.Client) -> None:
    answer = nobody.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    assert nobody.get("/metrics").headers["content-type"].startswith("text/plain; version=0.0.4")


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_what_a_proxy_forwards_is_not_a_local_scraper(nobody: httpx.Client, header: str) -> None:
    assert nobody.get("/metrics", headers={header: "127.0.0.1"}).status_code == 401


def test_from_elsewhere_a_key_needs_the_scope_runs(
    ann: httpx.Client, ada: httpx.Client, owner: httpx.Client, server: Served
) -> None:
    elsewhere = {"X-Forwarded-For": "203.0.113.7"}
    assert ann.get("/metrics", headers=elsewhere).status_code == 403
    assert ada.get("/metrics", headers=elsewhere).status_code == 200
    assert owner.get("/metrics", headers=elsewhere).status_code == 200
    assert ann.get("/metrics").status_code == 403  # a credential that is shown counts, here too


@pytest.mark.parametrize(
    ("peer", "opens"),
    [
        *[(peer, True) for peer in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1")],
        *[(peer, False) for peer in ("", "testclient", "10.0.0.1", "::ffff:10.0.0.1", "0.0.0.0", "::", "localhost")],
    ],
)
def test_only_an_address_of_this_machine_is_local(peer: str, opens: bool) -> None:
    assert is_open_to(peer, {}, "/metrics") is opens
    assert not is_open_to(peer, {}, "/api/ai/runs")


def test_a_store_that_is_away_does_not_take_the_metrics_with_it(
    nobody: httpx.Client, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.services.store.database import StoreUnavailable

    async def away(*_: Any) -> int:
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(server.bench.store.runs, "backlog", away)
    found = scraped(nobody)
    assert str(found["pilothouse_trace_backlog_runs[]"]) == "nan"
    assert found["pilothouse_requests_running[]"] >= 0
