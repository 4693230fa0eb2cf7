"""How the server is, over HTTP: all of it for the owner, a tenant's own part for its readers."""

import time

import httpx
import pytest

from app.services.store.database import StoreUnavailable
from tests.api.served import Served


def test_the_owner_sees_models_queue_and_books(owner: httpx.Client, ann: httpx.Client) -> None:
    before = {target["name"]: target for target in owner.get("/api/ai/health").json()["targets"]}["scripted"]
    ann.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "say x"}]})
    ann.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "fail"}]})
    found = owner.get("/api/ai/health").json()
    after = {target["name"]: target for target in found["targets"]}["scripted"]
    assert after["calls"] >= before["calls"] + 2
    assert after["failures"] > before["failures"]
    assert (after["breaker"], after["lastErrorCode"]) == ("closed", "upstream_error")
    assert after["lastErrorAt"] is not None
    assert after["p95Ms"] > 0
    assert (found["windowS"], found["commitsWaiting"] >= 0, found["traceBacklog"] >= 0) == (300, True, True)


def test_a_tenant_that_runs_something_is_in_the_queue_for_the_owner_and_itself(
    server: Served, owner: httpx.Client, ada: httpx.Client, eve: httpx.Client
) -> None:
    holds = {"messages": [{"role": "user", "content": "hold health"}], "stream": True}
    with ada.stream("POST", "/v1/chat/completions", json=holds) as answer:
        lines = answer.iter_lines()  # kept: a generator that is dropped closes the connection
        next(lines)
        with server.client("ada") as reader:
            for client in (owner, reader):
                tenants = client.get("/api/ai/health").json()["queue"]["tenants"]
                assert {"tenantId": "acme", "running": 1, "waiting": 0} in tenants
        told = eve.get("/api/ai/health").json()
        assert "acme" not in str(told)
        assert told["queue"] == {"running": 0, "waiting": 0, "tenants": []}
        server.release("health")
        assert "data: [DONE]" in list(lines)
    until = time.monotonic() + 30
    while "acme" in str(owner.get("/api/ai/health").json()["queue"]) and time.monotonic() < until:
        time.sleep(0.02)
    assert "acme" not in str(owner.get("/api/ai/health").json()["queue"])


def test_what_is_switched_off_is_part_of_the_owners_picture_only(owner: httpx.Client, eve: httpx.Client) -> None:
    owner.put("/api/ai/switches/tenant/nobody-here", json={"reason": "a secret reason"})
    assert "a secret reason" in owner.get("/api/ai/health").text
    assert "a secret reason" not in eve.get("/api/ai/health").text
    owner.delete("/api/ai/switches/tenant/nobody-here")


def test_without_the_scope_runs_there_is_no_picture(ann: httpx.Client) -> None:
    assert ann.get("/api/ai/health").status_code == 403


def test_a_store_that_is_away_is_part_of_the_picture(
    server: Served, owner: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away() -> int:
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(server.bench.watch.alerts, "unread", away)
    found = owner.get("/api/ai/health").json()
    assert (found["unreadAlerts"], found["traceBacklog"], found["well"]) == (None, None, False)
    assert found["targets"]
