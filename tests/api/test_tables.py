"""Tables over HTTP, and the tools that the file turns on, each used by an agent whose model does as it is told."""

import json
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from typing import Any

import httpx
import pytest

from app.services.gateway.scripted import SCRIPTED, Line, Say, ScriptedProvider
from graphs.types import ModelRequest, ToolProposal
from tests.api.conftest import PEOPLE
from tests.api.served import CONFIG, OWNER_KEY, Served, served
from tests.outbound.servers import answer
from tests.outbound.sites import Site, site

TOOLS = """
tools:
  web_fetch: {kind: builtin, options: {networks: [127.0.0.1/32]}}
  run_sql: {kind: builtin}
  run_python: {kind: builtin, tenants: [acme], options: {accepted: true}}
"""
SALES = b"city,sold\nBonn,3\nKiel,4\n"


def obeys(request: ModelRequest) -> Line:
    """Calls what the question is, as JSON, and repeats what the tool gave."""
    if request.messages[-1].role == "tool":
        return request.messages[-1].content
    asked = json.loads(next(turn.content for turn in reversed(request.messages) if turn.role == "user"))
    return Say(tool_calls=(ToolProposal("x", asked["tool"], asked["arguments"]),))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    obedient = ScriptedProvider(obeys, replace(SCRIPTED, name="obedient"))
    with served(tmp_path_factory.mktemp("tables"), CONFIG + TOOLS, more=[obedient]) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name, (tenant, scopes) in PEOPLE.items():
                groups = ["staff"] if name == "ada" else []
                wanted = {"tenantId": tenant, "userId": name, "scopes": scopes, "groups": groups}
                up.keys[name] = owner.post("/api/ai/keys", json=wanted).json()["key"]
        yield up


@pytest.fixture(scope="module")
def pages() -> Iterator[Site]:
    with site({"/otter": answer(b"<p>An otter eats fish.</p>", "Content-Type: text/html")}.__getitem__) as up:
        yield up


def upload(who: httpx.Client, name: str = "sales", content: bytes = SALES, **fields: str) -> httpx.Response:
    return who.post("/api/ai/tables", data={"name": name} | fields, files={"file": ("sales.csv", content)})


def use(who: httpx.Client, tool: str, **arguments: Any) -> dict[str, Any]:
    message = json.dumps({"tool": tool, "arguments": arguments})
    answered = who.post("/api/ai/chat", json={"message": message, "mode": "agent", "model": "obedient"})
    assert answered.status_code == 200, answered.text
    card: dict[str, Any] = answered.json()
    return card


def test_a_table_is_uploaded_listed_asked_and_removed(ann: httpx.Client, al: httpx.Client) -> None:
    added = upload(ann)
    assert added.status_code == 201, added.text
    assert added.json()["columns"] == [{"name": "city", "type": "VARCHAR"}, {"name": "sold", "type": "BIGINT"}]
    assert [each["name"] for each in al.get("/api/ai/tables").json()["items"]] == ["sales"]
    said = use(al, "run_sql", sql="SELECT sum(sold) AS sold FROM sales")
    assert said["status"] == "completed"
    assert "| 7 |" in said["answer"]
    assert ann.delete("/api/ai/tables/sales").status_code == 204
    assert ann.delete("/api/ai/tables/sales").status_code == 404


def test_a03_tables_of_another_tenant_are_not_there(ann: httpx.Client, eve: httpx.Client) -> None:
    assert upload(ann, "harvest").status_code == 201
    assert eve.get("/api/ai/tables").json()["items"] == []
    assert eve.delete("/api/ai/tables/harvest").status_code == 404
    told = json.dumps(use(eve, "run_sql", sql="SELECT * FROM harvest"))
    assert "does not exist" in told
    assert "Kiel" not in told


def test_a_table_for_a_group_is_hidden_from_the_rest_of_its_tenant(ada: httpx.Client, ann: httpx.Client) -> None:
    assert upload(ada, "salaries", b"who,pay\nkim,91000\n", allowGroups='["staff"]').status_code == 201
    assert "salaries" not in ann.get("/api/ai/tables").text
    assert upload(ann, "salaries").status_code == 409
    assert ann.delete("/api/ai/tables/salaries").status_code == 404
    assert "91000" not in json.dumps(use(ann, "run_sql", sql="SELECT * FROM salaries"))
    assert "91000" in json.dumps(use(ada, "run_sql", sql="SELECT * FROM salaries"))


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"name": "No Name"}, 422, "name"),
        ({}, 422, "name"),
        ({"name": "x", "allowGroups": "["}, 422, "allowGroups"),
        ({"name": "x", "allowGroups": '["*"]'}, 422, "allowGroups"),
        ({"name": "x", "other": "y"}, 422, "other"),
    ],
)
def test_an_upload_says_what_is_wrong_with_it(
    ann: httpx.Client, fields: dict[str, str], status: int, field: str
) -> None:
    refused = ann.post("/api/ai/tables", data=fields, files={"file": ("sales.csv", SALES)})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (status, field)
    assert ann.post("/api/ai/tables", json={"name": "x"}).status_code == 415


def test_a_reader_of_runs_alone_has_no_tables(server: Served) -> None:
    with server.client("reader") as reader:
        assert reader.get("/api/ai/tables").status_code == 403
        assert upload(reader).status_code == 403


def test_s06_an_outbound_call_waits_for_a_person_and_leaves_its_hash_in_the_trail(
    server: Served, pages: Site, ada: httpx.Client
) -> None:
    url = pages.url("/otter")
    asked = use(ada, "web_fetch", url=url)
    assert asked["status"] == "waiting"
    assert pages.requests == []
    decided = ada.post(f"/api/ai/approvals/{asked['pendingApproval']}", json={"decision": "approve"})
    assert decided.status_code == 200
    with ada.stream("GET", f"/api/ai/runs/{asked['requestId']}/events") as events:
        told = events.read().decode()
    assert "An otter eats fish." in told
    with server.client("owner") as owner:
        entry = next(each for each in owner.get("/api/ai/audit").json()["items"] if each["action"] == "web.fetched")
    assert entry["facts"] == {"urlSha256": sha256(url.encode()).hexdigest()}
    assert entry["subject"] == asked["requestId"]


def test_s06_a_canary_from_the_run_leaves_in_no_url_even_with_a_person_s_approval(
    pages: Site, ada: httpx.Client
) -> None:
    before = len(pages.requests)
    asked = use(ada, "web_fetch", url=pages.url("/otter?note=sk-canary-Zx81kQpLm3VtYb72HsRw0fGd"))
    assert asked["status"] == "waiting"
    assert ada.post(f"/api/ai/approvals/{asked['pendingApproval']}", json={"decision": "approve"}).status_code == 200
    with ada.stream("GET", f"/api/ai/runs/{asked['requestId']}/events") as events:
        assert "nothing was sent" in events.read().decode()
    assert len(pages.requests) == before


def test_t15_python_waits_for_a_person_and_is_not_offered_to_a_tenant_that_the_file_does_not_name(
    server: Served, ada: httpx.Client, eve: httpx.Client
) -> None:
    asked = use(ada, "run_python", code="print(6 * 7)")
    assert asked["status"] == "waiting"
    assert ada.post(f"/api/ai/approvals/{asked['pendingApproval']}", json={"decision": "approve"}).status_code == 200
    with ada.stream("GET", f"/api/ai/runs/{asked['requestId']}/events") as events:
        assert "42" in events.read().decode()
    refused = use(eve, "run_python", code="print(6 * 7)")
    assert "there is no tool" in json.dumps(refused)
