"""Keys over HTTP: shown once, listed without their secret, closed for good."""

from typing import Any

import httpx
import pytest

from tests.api.served import Served


def made(owner: httpx.Client, **fields: Any) -> httpx.Response:
    body = {"tenantId": "acme", "userId": "kim", "scopes": ["chat"], "name": "kim's laptop"}
    return owner.post("/api/ai/keys", json=body | fields)


def test_a_key_works_until_it_is_revoked(server: Served, owner: httpx.Client) -> None:
    answer = made(owner)
    server.keys["kim"] = answer.json()["key"]
    with server.client("kim") as kim:
        assert kim.get("/api/ai/conversations").status_code == 200
        assert kim.get("/api/ai/conversations", headers={"X-API-Key": "", "Authorization": ""}).status_code == 401
        assert owner.delete(f"/api/ai/keys/{answer.json()['keyId']}").status_code == 204
        assert kim.get("/api/ai/conversations").status_code == 401


def test_the_secret_is_in_no_list(owner: httpx.Client) -> None:
    secret = made(owner).json()["key"]
    listed = owner.get("/api/ai/keys").text
    assert secret not in listed
    assert secret.split("_", 2)[2] not in listed


def test_a_key_is_taken_as_bearer_too(server: Served, nobody: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {server.keys['ann']}"}
    assert nobody.get("/api/ai/conversations", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"tenantId": ""}, "tenantId"),
        ({"tenantId": "_shared"}, "tenantId"),
        ({"tenantId": "a\u202eb"}, "tenantId"),
        ({"userId": "x" * 129}, "userId"),
        ({"scopes": []}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"scopes": "chat"}, "scopes"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
        ({"expiresAt": "soon"}, "expiresAt"),
        ({"keyId": "mine"}, "keyId"),
    ],
)
def test_a_wrong_wish_is_named(owner: httpx.Client, fields: dict[str, Any], field: str) -> None:
    answer = made(owner, **fields)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_revoking_what_is_no_key_is_a_404(owner: httpx.Client) -> None:
    assert owner.delete("/api/ai/keys/" + "0" * 32).status_code == 404


def test_feedback_is_one_a_user_and_run(ann: httpx.Client, ada: httpx.Client) -> None:
    run = ann.post("/api/ai/chat", json={"message": "say x"}).json()["requestId"]
    for client, rating in ((ann, "up"), (ann, "down"), (ada, "up")):
        rated = client.post("/api/ai/feedback", json={"requestId": run, "rating": rating, "comment": "why"})
        assert rated.status_code == 200
    opinions = ann.get(f"/api/ai/runs/{run}/feedback").json()["items"]
    assert {item["userId"]: item["rating"] for item in opinions} == {"ann": "down", "ada": "up"}


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "requestId"), ({"requestId": "x", "rating": 5}, "rating"), ({"requestId": 1, "rating": "up"}, "requestId")],
)
def test_wrong_feedback_is_named(ann: httpx.Client, body: dict[str, Any], field: str) -> None:
    answer = ann.post("/api/ai/feedback", json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field)


def test_the_openapi_document_names_every_route_and_its_refusals(ann: httpx.Client) -> None:
    document = ann.get("/openapi.json").json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert {"401", "404", "422"} <= operation["responses"].keys(), (method, path)
    upload = document["paths"]["/api/ai/documents"]["post"]["requestBody"]["content"]
    assert upload.keys() == {"multipart/form-data", "application/json"}
    assert "text/event-stream" in document["paths"]["/api/ai/chat"]["post"]["responses"]["200"]["content"]


def test_a_runs_spans_and_card_are_there_for_its_owner(ann: httpx.Client) -> None:
    run = ann.post("/api/ai/chat", json={"message": "say x", "mode": "rag"}).json()["requestId"]
    spans = ann.get(f"/api/ai/runs/{run}/spans").json()["items"]
    (root,) = [span for span in spans if span["parentId"] is None]
    assert root["kind"] == "run"
    assert {"search", "model"} <= {span["kind"] for span in spans}
    (listed,) = ann.get("/api/ai/runs", params={"limit": 1, "mode": "rag"}).json()["items"]
    assert (listed["requestId"], listed["status"]) == (run, "completed")
