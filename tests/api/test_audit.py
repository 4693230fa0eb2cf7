"""The audit trail over HTTP and on the command line."""

import httpx
import pytest
from typer.testing import CliRunner

from app.cli import app as cli
from tests.api.served import Served


def test_who_makes_and_revokes_a_key_is_told_to_its_tenant(owner: httpx.Client, ada: httpx.Client) -> None:
    wanted = {"tenantId": "acme", "userId": "zoe", "scopes": ["chat"], "name": "zoe"}
    key_id = owner.post("/api/ai/keys", json=wanted).json()["keyId"]
    owner.patch(f"/api/ai/keys/{key_id}", json={"groups": ["payroll"]})
    owner.delete(f"/api/ai/keys/{key_id}")
    owner.delete(f"/api/ai/keys/{key_id}")  # again is fine, and no second act
    told = ada.get("/api/ai/audit", params={"limit": 3}).json()["items"]
    assert [(each["action"], each["userId"], each["subject"], each["tenantId"]) for each in told] == [
        ("key.revoked", "owner", key_id, "acme"),
        ("key.regrouped", "owner", key_id, "acme"),
        ("key.created", "owner", key_id, "acme"),
    ]
    assert "payroll" not in str(told)


def test_an_erased_conversation_and_a_decision_name_who_did_it(
    ann: httpx.Client, ada: httpx.Client, server: Served
) -> None:
    asked = ann.post("/api/ai/chat", json={"message": "ticket please", "mode": "agent"}).json()
    approval = asked["pendingApproval"]
    ada.post(f"/api/ai/approvals/{approval}", json={"decision": "deny", "comment": "not the printer again"})
    ann.delete(f"/api/ai/conversations/{asked['conversationId']}")
    told = {each["action"]: each for each in ada.get("/api/ai/audit", params={"limit": 3}).json()["items"]}
    assert told["approval.asked"]["userId"] == "ann"
    assert (told["approval.denied"]["userId"], told["approval.denied"]["subject"]) == ("ada", approval)
    assert told["approval.denied"]["facts"]["tool"] == "create_ticket"
    assert told["conversation.erased"]["userId"] == "ann"
    assert "printer" not in str(told)


def test_a09_a_tenant_sees_no_entry_of_another_and_a_user_without_the_scope_none(
    owner: httpx.Client, eve: httpx.Client, ann: httpx.Client
) -> None:
    assert ann.get("/api/ai/audit").status_code == 403
    assert {each["tenantId"] for each in eve.get("/api/ai/audit").json()["items"]} == {"umbrella"}
    assert {"acme", "umbrella"} <= {
        each["tenantId"] for each in owner.get("/api/ai/audit", params={"limit": 200}).json()["items"]
    }


def test_pages_follow_each_other(owner: httpx.Client) -> None:
    whole = [each["sequence"] for each in owner.get("/api/ai/audit", params={"limit": 6}).json()["items"]]
    first = owner.get("/api/ai/audit", params={"limit": 3}).json()
    second = owner.get("/api/ai/audit", params={"limit": 3, "cursor": first["nextCursor"]}).json()
    assert [each["sequence"] for page in (first, second) for each in page["items"]] == whole
    for forged in ("x", "-1", "1" * 30, "²"):
        assert owner.get("/api/ai/audit", params={"cursor": forged}).status_code == 422


def test_the_command_line_verifies_the_trail_and_misses_what_was_cut_off(
    owner: httpx.Client, server: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.post("/api/ai/keys", json={"tenantId": "acme", "userId": "cleo", "scopes": ["chat"], "name": "cleo"})
    monkeypatch.setenv("PILOTHOUSE_HOME", str(server.bench.settings.home))
    verified = CliRunner().invoke(cli, ["audit", "verify"])
    assert verified.exit_code == 0, verified.output
    anchor = next(line for line in verified.output.splitlines() if len(line.partition(":")[2]) == 64)
    assert CliRunner().invoke(cli, ["audit", "verify", "--anchor", anchor]).exit_code == 0
    number, _, digest = anchor.partition(":")
    beyond = CliRunner().invoke(cli, ["audit", "verify", "--anchor", f"{int(number) + 1}:{digest}"])
    assert (beyond.exit_code, "the trail ends before" in beyond.output) == (1, True)
    assert CliRunner().invoke(cli, ["audit", "verify", "--anchor", "nonsense"]).exit_code == 2
    listed = CliRunner().invoke(cli, ["audit", "list", "--tenant", "acme", "--limit", "5"])
    assert (listed.exit_code, "key.created" in listed.output) == (0, True)
