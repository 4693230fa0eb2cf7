"""Tools of others in a whole server: offered when somebody has answered for them, and to those they are for."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.served import CONFIG, OWNER_KEY, Served, served
from tests.services.tools.shed import ADA, HERE

ROOT = HERE.parents[2]
TOOLS = f"""
tools:
  greet: {{kind: langchain, path: "tests.services.tools.test_langchain:greet", risk: read, scope: documents}}
mcp_servers:
  raw:
    command: {sys.executable}
    args: [{HERE / "raw_peer.py"}]
    tools:
      say: {{risk: read}}
      keep: {{risk: write, tenants: [acme]}}
"""
PEOPLE = {"ann": ("acme", ["chat"]), "ada": ("acme", ["chat", "documents", "approvals"]), "eve": ("other", ["chat"])}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Served]:
    with served(home, CONFIG + TOOLS) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name, (tenant, scopes) in PEOPLE.items():
                key = {"tenantId": tenant, "userId": name, "scopes": scopes, "name": name}
                up.keys[name] = owner.post("/api/ai/keys", json=key).json()["key"]
        yield up


def ask(server: Served, who: str, tool: str, **arguments: Any) -> dict[str, Any]:
    """The card of a run whose model calls that tool."""
    with server.client(who) as client:
        answer = client.post("/api/ai/chat", json={"message": f"call {tool} {json.dumps(arguments)}", "mode": "agent"})
    assert answer.status_code == 200, answer.text
    card: dict[str, Any] = answer.json()
    return card


def accepted_elsewhere(home: Path, name: str) -> str:
    """What `pilothouse tools accept` says in a process of its own."""
    environment = {**os.environ, "PILOTHOUSE_HOME": str(home), "PILOTHOUSE_CONFIG": str(home / "pilothouse.yaml")}
    command = [sys.executable, "-c", "from app.cli import app; app()", "tools", "accept", name]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_t13_a_tool_is_offered_once_another_process_has_accepted_it(server: Served, home: Path) -> None:
    (refused,) = ask(server, "ann", "raw__say", word="hi")["tools"]
    assert (refused["status"], "there is no tool" in refused["summary"]) == ("refused", True)
    assert "raw__say is accepted as" in accepted_elsewhere(home, "raw__say")
    until = time.monotonic() + 30
    while (card := ask(server, "ann", "raw__say", word="hi"))["tools"][0]["status"] != "ok":
        assert time.monotonic() < until, card
        time.sleep(0.2)
    assert card["tools"][0]["summary"] == "heard hi"


def test_a07_a_tool_is_offered_to_keys_that_hold_its_scope_and_to_its_tenants(server: Served) -> None:
    for name in ("raw__keep", "greet"):
        server.call(server.bench.tools.accept(name, ADA.actor))
    for who, tool, arguments, status in (
        ("ada", "greet", {"name": "Bo"}, "ok"),
        ("ann", "greet", {"name": "Bo"}, "refused"),
        ("eve", "raw__keep", {"word": "hi"}, "refused"),
        ("eve", "raw__say", {"word": "hi"}, "ok"),
    ):
        (used,) = ask(server, who, tool, **arguments)["tools"]
        assert (who, tool, used["status"]) == (who, tool, status)


def test_what_has_an_effect_waits_for_a_person_runs_and_is_audited(server: Served) -> None:
    card = ask(server, "ann", "raw__keep", word="hi")
    assert card["status"] == "waiting"
    with server.client("ada") as ada:
        decided = ada.post(f"/api/ai/approvals/{card['pendingApproval']}", json={"decision": "approve"})
        assert decided.status_code == 200, decided.text
    with server.client("ann") as ann:
        until = time.monotonic() + 30
        while (done := ann.get(f"/api/ai/runs/{card['requestId']}").json())["status"] != "completed":
            assert time.monotonic() < until, done
            time.sleep(0.05)
    trail = server.call(server.bench.store.audit.latest("acme", 20))
    (entry,) = [entry for entry in trail if entry.action == "tool.called"]
    assert (entry.user_id, entry.subject, entry.facts["risk"]) == ("ann", "raw__keep", "write")
    assert entry.facts["run"] == card["requestId"]


def test_calls_of_tools_are_counted_for_the_operator(server: Served) -> None:
    ask(server, "eve", "raw__say", wrong="hi")
    with server.client("owner") as owner:
        told = owner.get("/metrics").text
    assert 'pilothouse_tool_calls_total{outcome="rejected",tool="raw__say"} 1.0' in told
    assert 'pilothouse_tool_breaker_state{tool="raw__say"} 0.0' in told
