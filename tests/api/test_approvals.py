"""Approvals and escalations over HTTP, and from the shell of the same machine."""

import time

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app as cli
from tests.api.served import Served

NEVER = "f" * 32


@pytest.fixture
def waiting(ann: httpx.Client) -> dict[str, str]:
    card = ann.post("/api/ai/chat", json={"message": "a ticket please", "mode": "agent"}).json()
    assert card["status"] == "waiting"
    return {"approval": card["pendingApproval"], "run": card["requestId"]}


@pytest.fixture
def shell(server: Served, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setenv("PILOTHOUSE_HOME", str(server.bench.settings.home))
    return CliRunner(env={"COLUMNS": "200"})


def test_the_list_is_narrowed_to_ones_own_runs_or_to_one_run(
    ann: httpx.Client, ada: httpx.Client, eve: httpx.Client, waiting: dict[str, str]
) -> None:
    def ids(client: httpx.Client, **wanted: str) -> list[str]:
        return [item["id"] for item in client.get("/api/ai/approvals", params=wanted).json()["items"]]

    assert waiting["approval"] in ids(ada)
    assert ids(ada, requestId=waiting["run"]) == [waiting["approval"]]
    assert waiting["approval"] not in ids(ada, mine="true")
    assert ids(eve, requestId=waiting["run"]) == []
    assert ids(ada, requestId=waiting["run"], state="approved_once") == []


def test_t05_a_decision_on_what_is_not_there_any_more_is_refused(ada: httpx.Client, waiting: dict[str, str]) -> None:
    url = f"/api/ai/approvals/{waiting['approval']}"
    shown = ada.get(url).json()
    assert (shown["needs"], shown["standing"], len(shown["binding"])) == (1, shown["arguments"], 64)
    stale = ada.post(url, json={"decision": "approve", "binding": "0" * 64})
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
    assert ada.post(url, json={"decision": "deny", "binding": shown["binding"]}).json()["state"] == "denied"


def test_a_run_that_failed_is_handed_to_people_one_takes_it_and_it_is_closed_once(
    ann: httpx.Client, ada: httpx.Client, eve: httpx.Client
) -> None:
    failed = ann.post("/api/ai/chat", json={"message": "fail"}).json()
    card = ann.get(f"/api/ai/runs/{failed['requestId']}").json()
    assert (card["status"], card["safeAnswer"][:22]) == ("failed", "I cannot answer just n")
    opened = ada.get("/api/ai/escalations", params={"state": "open"}).json()["items"]
    mine = next(item for item in opened if item["requestId"] == failed["requestId"])
    assert (mine["reason"], mine["detail"], mine["takenBy"]) == ("the run failed", "upstream_broke_off", None)
    url = f"/api/ai/escalations/{mine['escalationId']}"
    assert ann.post(url, json={"step": "take"}).status_code == 403
    for other in (url, f"/api/ai/escalations/{NEVER}"):
        assert [eve.get(other).status_code, eve.post(other, json={"step": "take"}).status_code] == [404, 404]
    assert ada.post(url, json={"step": "take"}).json()["takenBy"] == "ada"
    assert ada.post(url, json={"step": "take"}).status_code == 409
    closed = ada.post(url, json={"step": "close", "comment": "told the provider"}).json()
    assert (closed["state"], closed["closedBy"], closed["comment"]) == ("closed", "ada", "told the provider")
    assert ada.post(url, json={"step": "close"}).status_code == 409
    assert ada.get(url).json() == closed


def test_what_a_user_does_wrong_is_no_matter_for_people(ann: httpx.Client, ada: httpx.Client) -> None:
    before = ada.get("/api/ai/escalations").json()["items"]
    assert ann.post("/api/ai/chat", json={"message": "x", "collection": "no-such"}).status_code in {200, 404}
    assert ann.post("/api/ai/chat", json={"message": "x", "model": "no-such"}).status_code == 404
    assert ada.get("/api/ai/escalations").json()["items"] == before


def test_a_call_is_looked_at_and_approved_from_the_shell(
    server: Served, ann: httpx.Client, ada: httpx.Client, shell: CliRunner, waiting: dict[str, str]
) -> None:
    at = ["--tenant", "acme"]
    listed = shell.invoke(cli, ["approvals", "list", *at])
    assert waiting["approval"] in listed.output
    shown = shell.invoke(cli, ["approvals", "show", waiting["approval"], *at])
    assert ("create_ticket" in shown.output, "Printer" in shown.output) == (True, True)
    done = shell.invoke(cli, ["approvals", "approve", waiting["approval"], *at, "--comment", "[bold]fine"])
    assert (done.exit_code, done.output) == (0, "create_ticket for ann: approved.\n")
    again = shell.invoke(cli, ["approvals", "deny", waiting["approval"], *at])
    assert (again.exit_code, shell.invoke(cli, ["approvals", "show", NEVER, *at]).exit_code) == (1, 1)
    assert shell.invoke(cli, ["approvals", "list", "--state", "gone"]).exit_code == 2
    server.call(server.bench.runner.go_on())
    until = time.monotonic() + 60
    while (card := ann.get(f"/api/ai/runs/{waiting['run']}").json())["status"] in {"waiting", "running"}:
        assert time.monotonic() < until, card
        time.sleep(0.05)
    assert (card["status"], card["tools"][0]["status"]) == ("completed", "ok")
    assert ada.get(f"/api/ai/approvals/{waiting['approval']}").json()["decidedBy"] == "operator"


def test_a_denial_from_the_shell_ends_the_call(ada: httpx.Client, shell: CliRunner, waiting: dict[str, str]) -> None:
    denied = shell.invoke(cli, ["approvals", "deny", waiting["approval"], "--tenant", "acme"])
    assert denied.output == "create_ticket for ann: denied.\n"
    assert ada.get(f"/api/ai/approvals/{waiting['approval']}").json()["state"] == "denied"
