"""Two tenants, two users: what is another's is a 404 in the same words as what never was."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.api.served import Served

NEVER = "0" * 31 + "1"  # fixed: parallel test processes must collect the same names


@dataclass(frozen=True)
class Things:
    """One of each, all ann's, in the tenant acme."""

    conversation: str
    run: str
    waiting: str
    approval: str
    document: str = "plans/2026"
    collection: str = "acme-plans"


@pytest.fixture(scope="module")
def things(server: Served) -> Iterator[Things]:
    with server.client("ann") as ann, server.client("ada") as ada:
        card = ann.post("/api/ai/chat", json={"message": "say hello"}).json()
        waiting = ann.post("/api/ai/chat", json={"message": "a ticket please", "mode": "agent"}).json()
        assert waiting["status"] == "waiting"
        documents = [{"id": "plans/2026", "title": "Plans", "text": "The harbour is dredged in spring."}]
        added = ann.post("/api/ai/documents", json={"collection": "acme-plans", "documents": documents})
        assert added.status_code == 201, added.text
        pending = ada.get("/api/ai/approvals").json()["items"]
        assert waiting["pendingApproval"] in [item["id"] for item in pending]
        yield Things(card["conversationId"], card["requestId"], waiting["requestId"], waiting["pendingApproval"])


def by_id(conversation: str, run: str, approval: str, document: str, collection: str) -> list[tuple[str, str, Any]]:
    """Every call that names a thing by its id, in the path or in the body."""
    return [
        ("GET", f"/api/ai/conversations/{conversation}", None),
        ("DELETE", f"/api/ai/conversations/{conversation}", None),
        ("POST", "/api/ai/chat", {"message": "say x", "conversationId": conversation}),
        ("POST", "/api/ai/chat", {"message": "say x", "conversationId": conversation, "stream": True}),
        ("GET", f"/api/ai/runs/{run}", None),
        ("GET", f"/api/ai/runs/{run}/events", None),
        ("GET", f"/api/ai/runs/{run}/spans", None),
        ("GET", f"/api/ai/runs/{run}/feedback", None),
        ("POST", f"/api/ai/runs/{run}/cancel", None),
        ("POST", "/api/ai/feedback", {"requestId": run, "rating": "up"}),
        ("GET", f"/api/ai/approvals/{approval}", None),
        ("POST", f"/api/ai/approvals/{approval}", {"decision": "approve"}),
        ("GET", f"/api/ai/documents/{document}", None),
        ("GET", f"/api/ai/documents/{document}?collection={collection}", None),
        ("DELETE", f"/api/ai/documents/{document}", None),
        ("DELETE", f"/api/ai/documents/{document}?collection={collection}", None),
    ]


def told(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    """The answer without the request's own id."""
    problem = answer.json()
    problem.pop("requestId")
    return answer.status_code, problem


@pytest.mark.parametrize("place", range(16))
def test_a03_another_tenants_things_are_as_missing_as_what_never_was(
    eve: httpx.Client, things: Things, place: int
) -> None:
    theirs = by_id(things.conversation, things.run, things.approval, things.document, things.collection)[place]
    none = by_id(NEVER, NEVER, NEVER, "no/such", things.collection)[place]
    malformed = by_id("a'%20OR%201=1", "%00", "x" * 300, "..%2f..%2fetc", things.collection)[place]
    answers = [told(eve.request(method, url, json=body)) for method, url, body in (theirs, none, malformed)]
    assert answers[0][0] == 404
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.parametrize("place", range(10))
def test_a03_a_users_things_are_missing_for_a_colleague(al: httpx.Client, things: Things, place: int) -> None:
    method, url, body = by_id(things.conversation, things.run, "", "", "")[place]
    assert al.request(method, url, json=body).status_code == 404


def test_no_attempt_of_another_tenant_left_a_trace(ann: httpx.Client, ada: httpx.Client, things: Things) -> None:
    assert ann.get(f"/api/ai/conversations/{things.conversation}").status_code == 200
    assert ann.get(f"/api/ai/runs/{things.waiting}").json()["status"] == "waiting"
    assert ada.get(f"/api/ai/approvals/{things.approval}").json()["state"] == "pending"
    assert ann.get(f"/api/ai/documents/{things.document}").json()["text"] == "The harbour is dredged in spring."
    assert not ann.get(f"/api/ai/runs/{things.run}/feedback").json()["items"]


def test_a04_another_tenants_collection_cannot_be_searched(
    eve: httpx.Client, ann: httpx.Client, things: Things
) -> None:
    asked = {"query": "harbour", "collection": things.collection}
    assert ann.post("/api/ai/search", json=asked).json()["results"][0]["documentId"] == things.document
    assert eve.post("/api/ai/search", json=asked).status_code == 404
    assert (
        eve.post("/api/ai/chat", json={"message": "say x", "mode": "rag", "collection": things.collection}).status_code
        == 404
    )


def test_a08_the_same_names_are_other_things_in_another_tenant(
    eve: httpx.Client, ann: httpx.Client, things: Things
) -> None:
    documents = [{"id": things.document, "text": "Umbrellas are sold in autumn."}]
    assert (
        eve.post("/api/ai/documents", json={"collection": things.collection, "documents": documents}).status_code == 201
    )
    url = f"/api/ai/documents/{things.document}?collection={things.collection}"
    assert "Umbrellas" in eve.get(url).json()["text"]
    assert "harbour" in ann.get(url).json()["text"]
    found = eve.post("/api/ai/search", json={"query": "harbour dredged", "collection": things.collection}).json()
    assert [item["text"] for item in found["results"]] == ["Umbrellas are sold in autumn."]
    assert eve.delete(url).status_code == 204
    assert ann.get(url).status_code == 200


@pytest.mark.parametrize("path", ["conversations", "runs", "approvals", "documents", "tickets", "escalations"])
def test_a06_lists_hold_what_is_ones_own(eve: httpx.Client, things: Things, path: str) -> None:
    listed = eve.get(f"/api/ai/{path}", params={"limit": 200}, headers={"X-Tenant": "acme", "X-Tenant-Id": "acme"})
    assert listed.status_code == 200
    shown = json.dumps(listed.json())
    assert all(id_ not in shown for id_ in (things.conversation, things.run, things.approval, things.document))


def test_v12_a_cursor_of_another_tenant_gives_no_rows_of_it(
    ann: httpx.Client, eve: httpx.Client, things: Things
) -> None:
    ann.post("/api/ai/chat", json={"message": "say again"})
    cursor = ann.get("/api/ai/runs", params={"limit": 1}).json()["nextCursor"]
    listed = eve.get("/api/ai/runs", params={"cursor": cursor}).json()["items"]
    assert all(item["userId"] == "eve" for item in listed)


def test_a06_the_tenant_comes_from_the_credential_alone(eve: httpx.Client) -> None:
    for body in ({"tenantId": "acme"}, {"tenant": "acme"}, {"userId": "ann"}):
        answer = eve.post("/api/ai/chat", json={"message": "say x", **body})
        assert (answer.status_code, answer.json()["field"]) == (422, next(iter(body)))


def test_with_the_scope_runs_a_colleagues_runs_can_be_read(server: Served, things: Things) -> None:
    with server.client("reader") as reader:
        assert reader.get(f"/api/ai/runs/{things.run}").json()["answer"] == "hello"
        assert things.run in [item["requestId"] for item in reader.get("/api/ai/runs").json()["items"]]


@pytest.mark.parametrize(
    ("who", "method", "path", "body"),
    [
        ("reader", "POST", "/api/ai/chat", {"message": "say x"}),
        ("reader", "POST", "/api/ai/search", {"query": "x"}),
        ("reader", "POST", "/api/ai/documents", {"collection": "c", "documents": [{"id": "1", "text": "x"}]}),
        ("reader", "GET", "/api/ai/documents", None),
        ("ann", "GET", "/api/ai/approvals", None),
        ("ann", "GET", "/api/ai/keys", None),
        ("ada", "POST", "/api/ai/keys", {"tenantId": "acme", "userId": "x", "scopes": ["owner"], "name": "x"}),
        ("ada", "DELETE", f"/api/ai/keys/{NEVER}", None),
        ("ann", "GET", "/api/ai/escalations", None),
    ],
)
def test_a_credential_opens_no_more_than_its_scopes(
    server: Served, who: str, method: str, path: str, body: Any
) -> None:
    with server.client(who) as client:
        answer = client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


def test_an_approval_is_decided_once(ann: httpx.Client, ada: httpx.Client, things: Things) -> None:
    url = f"/api/ai/approvals/{things.approval}"
    assert ann.post(url, json={"decision": "approve"}).status_code == 403
    decided = ada.post(url, json={"decision": "approve", "arguments": {"title": "Plotter", "body": "Broken."}})
    assert (decided.status_code, decided.json()["state"]) == (200, "approved")
    assert ada.post(url, json={"decision": "deny"}).status_code == 409
    events = ann.get(f"/api/ai/runs/{things.waiting}/events").text
    assert "event: run.completed" in events
    tickets = ada.get("/api/ai/tickets").json()["items"]
    assert [ticket["title"] for ticket in tickets if ticket["requestId"] == things.waiting] == ["Plotter"]
