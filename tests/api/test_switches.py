"""Switches over HTTP: the owner's alone, and what they stop at every door."""

import json
import re
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app as cli
from tests.api.served import Served

CHAT = {"messages": [{"role": "user", "content": "say x"}]}


@pytest.fixture
def stopped(server: Served, owner: httpx.Client) -> Iterator[httpx.Client]:
    """Somebody of a tenant that may be stopped without stopping other tests."""
    if "stan" not in server.keys:
        wanted = {"tenantId": "stoppable", "userId": "stan", "scopes": ["chat", "runs"], "name": "stan"}
        server.keys["stan"] = owner.post("/api/ai/keys", json=wanted).json()["key"]
    with server.client("stan") as client:
        yield client
    for kind, name in (("tenant", "stoppable"), ("model", "scripted")):
        owner.delete(f"/api/ai/switches/{kind}/{name}")
    # Whatever a switch ended has given its place back.
    for _ in range(200):
        if "stoppable" not in owner.get("/api/ai/health").text:
            return
        time.sleep(0.05)
    raise AssertionError("a stopped call keeps its place")


def test_a_tenant_that_is_off_is_refused_at_every_door_and_others_are_not(
    owner: httpx.Client, stopped: httpx.Client, ann: httpx.Client
) -> None:
    put = owner.put("/api/ai/switches/tenant/stoppable", json={"reason": "it loops"})
    assert put.status_code == 200
    assert {
        "kind": "tenant",
        "name": "stoppable",
        "reason": "it loops",
        "by": "default/owner",
    }.items() <= put.json().items()
    told = stopped.post("/v1/chat/completions", json=CHAT)
    assert (told.status_code, told.json()["error"]["code"]) == (403, "switched_off")
    told = stopped.post("/api/ai/chat", json={"message": "say x"})
    assert (told.status_code, told.json()["code"]) == (403, "switched_off")
    assert "it loops" in told.json()["detail"]
    assert ann.post("/v1/chat/completions", json=CHAT).status_code == 200
    assert owner.delete("/api/ai/switches/tenant/stoppable").status_code == 204
    assert stopped.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_asi10_a_stream_that_runs_is_ended_with_an_error_event(
    server: Served, owner: httpx.Client, stopped: httpx.Client
) -> None:
    holds = {"messages": [{"role": "user", "content": "hold switched-stream"}], "stream": True}
    with stopped.stream("POST", "/v1/chat/completions", json=holds) as answer:
        lines = answer.iter_lines()
        assert "one" in next(line for line in lines if '"content"' in line)
        owner.put("/api/ai/switches/tenant/stoppable", json={})
        rest = [line.removeprefix("data: ") for line in lines if line]
    assert json.loads(rest[-1])["error"]["code"] == "switched_off"
    assert "[DONE]" not in rest


def test_asi10_an_answer_that_has_not_begun_is_refused(
    server: Served, owner: httpx.Client, stopped: httpx.Client
) -> None:
    holds = {"messages": [{"role": "user", "content": "hold switched-whole"}]}
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(stopped.post("/v1/chat/completions", json=holds))

    asking = threading.Thread(target=ask)
    asking.start()
    while "switched-whole" not in server.script.gates:
        asking.join(0.01)
    owner.put("/api/ai/switches/tenant/stoppable", json={})
    asking.join(30)
    assert (answers[0].status_code, answers[0].json()["error"]["code"]) == (403, "switched_off")


def test_asi10_a_run_that_goes_on_is_ended(server: Served, owner: httpx.Client, stopped: httpx.Client) -> None:
    with stopped.stream("POST", "/api/ai/chat", json={"message": "hold switched-run", "stream": True}) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if "message.delta" in line)
        owner.put("/api/ai/switches/tenant/stoppable", json={})
        rest = [line for line in lines if line]
    assert "event: run.failed" in rest
    assert "switched_off" in rest[-1]


def test_asi10_the_command_line_ends_what_a_server_runs(
    server: Served, owner: httpx.Client, stopped: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PILOTHOUSE_HOME", str(server.bench.settings.home))
    holds = {"messages": [{"role": "user", "content": "hold switched-cli"}], "stream": True}
    with stopped.stream("POST", "/v1/chat/completions", json=holds) as answer:
        lines = answer.iter_lines()
        next(line for line in lines if '"content"' in line)
        told = CliRunner().invoke(cli, ["switch", "off", "tenant", "stoppable", "--reason", "it [bold]loops"])
        assert (told.exit_code, told.stdout) == (0, "tenant stoppable is switched off.\n")
        assert "switched_off" in [line for line in lines if line][-1]
    told = CliRunner().invoke(cli, ["switch", "list"])
    assert re.search(r"tenant +stoppable .* default/operator +it \[bold\]loops", told.stdout)
    assert CliRunner().invoke(cli, ["switch", "on", "tenant", "stoppable"]).exit_code == 0
    for wrong in (["on", "tenant", "stoppable"], ["off", "key", "none"], ["off", "user", "ann"]):
        assert CliRunner().invoke(cli, ["switch", *wrong]).exit_code == 1


def test_a_model_that_is_off_serves_nobody(owner: httpx.Client, stopped: httpx.Client) -> None:
    assert owner.put("/api/ai/switches/model/scripted", json={}).status_code == 200
    assert stopped.post("/v1/chat/completions", json=CHAT).status_code == 403
    assert owner.delete("/api/ai/switches/model/scripted").status_code == 204
    assert stopped.post("/v1/chat/completions", json=CHAT).status_code == 200


def test_asi10_who_is_calling_a_model_that_is_switched_off_is_stopped(
    server: Served, owner: httpx.Client, stopped: httpx.Client
) -> None:
    holds = {"messages": [{"role": "user", "content": "hold switched-model"}], "stream": True}
    asks = {"message": "hold switched-model", "stream": True}
    with (
        stopped.stream("POST", "/v1/chat/completions", json=holds) as answer,
        server.client("stan") as again,
        again.stream("POST", "/api/ai/chat", json=asks) as run,
    ):
        lines, events = answer.iter_lines(), run.iter_lines()
        next(line for line in lines if '"content"' in line)
        next(line for line in events if "message.delta" in line)
        owner.put("/api/ai/switches/model/scripted", json={})
        assert "switched_off" in [line for line in lines if line][-1]
        assert "switched_off" in [line for line in events if line][-1]


def test_switches_are_listed_and_read(owner: httpx.Client, stopped: httpx.Client) -> None:
    place = "/api/ai/switches/tenant/a/b%2Fc%3F"
    assert owner.get(place).status_code == 404
    assert owner.put(place, json={"reason": "x"}).json()["name"] == "a/b/c?"
    assert owner.get(place).json()["name"] == "a/b/c?"
    assert "a/b/c?" in [item["name"] for item in owner.get("/api/ai/switches").json()["items"]]
    assert owner.delete(place).status_code == 204
    assert owner.delete(place).status_code == 404


@pytest.mark.parametrize("place", ["model/none", "key/none", "user/ann", "key/%00", "\u202etenant/x"])
def test_a_switch_for_what_nobody_has_is_missing(owner: httpx.Client, place: str) -> None:
    assert owner.put(f"/api/ai/switches/{place}", json={}).status_code == 404
    assert owner.delete(f"/api/ai/switches/{place}").status_code == 404
    assert owner.get(f"/api/ai/switches/{place}").status_code == 404


@pytest.mark.parametrize("body", [{"reason": "a\x1b[2J"}, {"reason": "x" * 1001}, {"why": "x"}, [], {"reason": None}])
def test_a_reason_that_no_log_should_hold_is_refused(owner: httpx.Client, body: object) -> None:
    assert owner.put("/api/ai/switches/tenant/x", json=body).status_code == 422
    assert owner.put("/api/ai/switches/tenant/a%00b", json={}).status_code == 422


def test_only_the_owner_may_look_or_throw(ann: httpx.Client, ada: httpx.Client) -> None:
    for client in (ann, ada):
        assert client.get("/api/ai/switches").status_code == 403
        assert client.get("/api/ai/switches/tenant/acme").status_code == 403
        assert client.put("/api/ai/switches/tenant/umbrella", json={}).status_code == 403
        assert client.delete("/api/ai/switches/tenant/umbrella").status_code == 403
