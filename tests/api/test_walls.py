"""The wall between two tenants, tried at every route of the API's own document with everything that has an id."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx
import pytest

from app.services.quota.usage import UsageBook
from tests.api.conftest import PEOPLE
from tests.api.openapi import JSON, Place, Route, Shape, routes_of
from tests.api.served import OWNER_KEY, Served, served

NEVER: Final = "0" * 31 + "1"
TEXT: Final = "The harbour is dredged in spring."
CREATES: Final = "POST /api/ai/documents"  # names there are of what is new and the caller's own: see a08
AN_ID: Final = re.compile(r"[a-z]Ids?$|^(id|collection|binding|asOf|thread|parent)$")
NO_ID: Final = {"customId"}  # a label that comes back with the caller's own result
_TENANTS: Final = ("X-Tenant", "X-Tenant-Id", "X-Pilothouse-Tenant", "Tenant", "X-Org-Id", "X-Scope-OrgID")
_USERS: Final = ("X-User", "X-User-Id", "X-Forwarded-User", "Remote-User", "X-Authenticated-User")
PRETENDING: Final = dict.fromkeys(_TENANTS, "acme") | dict.fromkeys(_USERS, "ada")


@dataclass(frozen=True)
class Things:
    """One of each, all ada's, in the tenant acme: by the word before them in a path, and by the field of a body."""

    in_path: dict[str, str]
    in_body: dict[str, str]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("walls"), serving=True) as up:
        up.keys["owner"] = OWNER_KEY
        with up.client("owner") as owner:
            for name in ("ada", "eve"):
                tenant, scopes = PEOPLE[name]
                made = owner.post("/api/ai/keys", json={"tenantId": tenant, "userId": name, "scopes": scopes})
                up.keys[name] = made.json()["key"]
        yield up


@pytest.fixture(scope="module")
def routes(server: Served) -> list[Route]:
    return routes_of(server)


@pytest.fixture(scope="module")
def things(server: Served) -> Things:
    with server.client("ada") as ada, server.client("owner") as owner:
        card = ada.post("/api/ai/chat", json={"message": "say hello"}).json()
        ada.post("/api/ai/feedback", json={"requestId": card["requestId"], "rating": "up"})
        waiting = ada.post("/api/ai/chat", json={"message": "a ticket please", "mode": "agent"}).json()
        approval = waiting["pendingApproval"]
        ada.post("/api/ai/chat", json={"message": "fail"})
        documents = {"collection": "acme-plans", "documents": [{"id": "plan", "text": TEXT}]}
        assert ada.post("/api/ai/documents", json=documents).status_code == 201
        asked = {"items": [{"question": "When is it dredged?", "documentId": "plan"}]}
        golden = ada.post("/api/ai/collections/acme-plans/golden", json=asked)
        table = ada.post("/api/ai/tables", data={"name": "sales"}, files={"file": ("s.csv", b"city,sold\nBonn,3\n")})
        assert (golden.status_code, table.status_code) == (201, 201), (golden.text, table.text)
        job = ada.post("/api/ai/jobs", json={"kind": "runs", "runs": [{"message": "say x"}]}).json()["jobId"]
        until_ended(ada, job)
        in_path = {
            "conversations": card["conversationId"],
            "runs": card["requestId"],
            "approvals": approval,
            "escalations": first(ada, "escalations")["escalationId"],
            "documents": "plan",
            "collections": "acme-plans",
            "golden": first(ada, "collections/acme-plans/golden")["goldenId"],
            "tables": "sales",
            "jobs": job,
            "keys": next(key for key in owner.get("/api/ai/keys").json()["items"] if key["userId"] == "ada")["keyId"],
            "switches": "tenant/acme",
            "alerts": NEVER,
        }
        in_body = {
            "conversationId": card["conversationId"],
            "requestId": card["requestId"],
            "collection": "acme-plans",
            "id": "plan",
            "documentId": "plan",
            "binding": ada.get(f"/api/ai/approvals/{approval}").json()["binding"],
            "asOf": ada.post("/api/ai/search", json={"query": "x", "collection": "acme-plans"}).json()["indexVersion"],
            "tenantId": "acme",
            "userId": "ada",
        }
        return Things(in_path, in_body)


def first(client: httpx.Client, path: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/ai/{path}").json()["items"][0]
    return found


def until_ended(client: httpx.Client, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 100
    while (state := client.get(f"/api/ai/jobs/{job}").json())["status"] not in {"succeeded", "failed", "cancelled"}:
        assert time.monotonic() < deadline, state
        time.sleep(0.05)
    return dict(state)


def asked(client: httpx.Client, route: Route, path: str, body: Any = None, **given: Any) -> httpx.Response:
    params = given.pop("params", {})
    if "collection" in route.parameters and "{" in route.path:
        params = {"collection": "acme-plans"} | params
    content = None if body is None else json.dumps(body).encode()
    headers = given.get("headers", {}) | (JSON if content else {})
    return client.request(route.method, path, content=content, headers=headers, params=params)


def told(answer: httpx.Response, named: str) -> tuple[int, Any]:
    """The answer without the request's own id and without what was asked for."""
    body = json.loads(answer.text.replace(named or NEVER, "*")) if answer.text else {}
    return answer.status_code, {name: value for name, value in body.items() if name != "requestId"}


@pytest.fixture
def unharmed(server: Served, routes: list[Route], things: Things, ada: httpx.Client) -> Iterator[None]:
    """Whatever is tried meanwhile: ada reads the same after it as before, and no model was asked."""
    readable = [route for route in routes if route.method == "GET" and not route.streams and readable_by_all(route)]
    assert len(readable) > 20
    before = {str(route): asked(ada, route, route.naming(things.in_path)) for route in readable}
    assert {name: answer.status_code for name, answer in before.items() if answer.status_code != 200} == {}
    asked_models = len(server.script.requests)
    yield
    assert len(server.script.requests) == asked_models
    after = {str(route): asked(ada, route, route.naming(things.in_path)).json() for route in readable}
    assert after == {name: answer.json() for name, answer in before.items()}


def readable_by_all(route: Route) -> bool:
    """Not what is for the owner alone, and not what tells of the machine."""
    return not re.search(r"/(keys|switches|alerts|health|healthz|readyz|metrics)\b", route.path)


@pytest.mark.usefixtures("unharmed")
def test_a03_every_path_of_another_tenants_thing_is_as_missing_as_what_never_was(
    server: Served, routes: list[Route], things: Things, ada: httpx.Client, eve: httpx.Client
) -> None:
    tried = 0
    for route in routes:
        if "{" not in route.path:
            continue
        body = route.shapes[0].least() if route.shapes else None
        never = dict.fromkeys(things.in_path, NEVER) | {"switches": f"tenant/{NEVER}"}
        theirs, none = route.naming(things.in_path), route.naming(never)
        assert theirs != route.path
        named = theirs.partition(route.path.partition("{")[0])[2]
        answers = [
            told(asked(eve, route, theirs, body), named.partition("/")[0]),
            told(asked(eve, route, none, body), NEVER),
        ]
        assert answers[0] == answers[1], route
        # What the owner alone may do is refused to ada too, before anybody looks for the thing.
        refusal = 403 if asked(ada, route, none, body).status_code == 403 else 404
        assert answers[0][0] == refusal, (route, answers[0])
        tried += 1
    assert tried > 30


@pytest.mark.usefixtures("unharmed")
def test_a04_every_id_in_a_body_that_is_another_tenants_is_as_missing_as_what_never_was(
    routes: list[Route], things: Things, eve: httpx.Client
) -> None:
    tried = 0
    for route, shape in ((each, shape) for each in routes for shape in each.shapes if str(each) != CREATES):
        path = route.naming(things.in_path | {"collections": "umbrellas"})
        for place, value in ids(shape, things):
            theirs, none = (asked(eve, route, path, with_mode(shape.having(id_, place))) for id_ in (value, NEVER))
            assert theirs.status_code == none.status_code, (route, place)
            if theirs.status_code >= 300:
                assert told(theirs, value) == told(none, NEVER), (route, place)
            else:
                assert theirs.status_code == 202, (route, place)
                nothing_came_of(eve, theirs.json()["jobId"])
            tried += 1
    assert tried > 12


def with_mode(body: dict[str, Any]) -> dict[str, Any]:
    """Such that a run looks at its collection: a chat reads none."""
    if "runs" in body:
        return body | {"runs": [run | {"mode": "rag"} for run in body["runs"]]}
    return body | {"mode": "rag"} if "message" in body else body


def ids(shape: Shape, things: Things) -> Iterator[tuple[Place, str]]:
    for place, _ in shape.places():
        name = next((part for part in reversed(place) if isinstance(part, str)), "")
        if AN_ID.search(name) and name not in NO_ID:
            yield place, things.in_body[name]


def nothing_came_of(eve: httpx.Client, job: str) -> None:
    state = until_ended(eve, job)
    items = eve.get(f"/api/ai/jobs/{job}/items").json()["items"]
    failures = [item["error"] for item in items] if state["kind"] == "runs" else [state["error"]]
    assert [failure["code"] for failure in failures] == ["not_found"]


def test_a03_an_attempt_is_in_the_access_log_with_who_made_it(
    server: Served, things: Things, eve: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "pilothouse.access"):
        assert eve.get(f"/api/ai/runs/{things.in_path['runs']}").status_code == 404
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:  # it is written when the answer is out
            time.sleep(0.01)
    lines = [record.line for record in caplog.records if record.name == "pilothouse.access"]  # type: ignore[attr-defined]
    line = next(line for line in lines if line["tenantId"] == "umbrella")
    assert (line["method"], line["status"], line["userId"]) == ("GET", 404, "eve")
    assert line["path"].startswith("/api/ai/runs/")
    assert line["keyId"] == server.keys["eve"].split("_")[1]


@pytest.mark.usefixtures("unharmed")
def test_a06_no_header_and_no_parameter_makes_anybody_another_tenant(
    server: Served, routes: list[Route], things: Things, eve: httpx.Client
) -> None:
    pretended = {"tenant": "acme", "tenantId": "acme", "tenant_id": "acme", "userId": "ada", "user": "ada"}
    tried = 0
    for route in routes:
        if route.method != "GET" or route.streams or not readable_by_all(route):
            continue
        path = route.naming(things.in_path)
        plain, headed = asked(eve, route, path), asked(eve, route, path, headers=PRETENDING)
        assert told(plain, "") == told(headed, ""), route
        # A parameter that there is may be refused, one that there is not is nothing.
        asking = asked(eve, route, path, params=pretended)
        assert asking.status_code in {plain.status_code, 403}, route
        assert asking.status_code == 403 or told(asking, "") == told(plain, ""), route
        tried += 1
    assert tried > 20
    said = eve.post("/api/ai/search", json={"query": "harbour", "collection": "acme-plans"}, headers=PRETENDING)
    assert said.status_code == 404


@pytest.mark.usefixtures("things")
def test_a06_what_is_written_under_another_name_is_the_writers_own(
    server: Served, ada: httpx.Client, eve: httpx.Client
) -> None:
    before = len(ada.get("/api/ai/runs").json()["items"])
    said = eve.post("/api/ai/chat", json={"message": "say mine"}, headers=PRETENDING).json()
    assert eve.get(f"/api/ai/runs/{said['requestId']}").status_code == 200
    assert len(ada.get("/api/ai/runs").json()["items"]) == before
    book = UsageBook(server.bench.store.database)
    report = server.call(book.report(group_by=("tenant", "run"), tenant_id=None, since=None, until=None))
    assert {row.keys[0] for row in report.rows if row.keys[1] == said["requestId"]} == {"umbrella"}


def upload(client: httpx.Client, words: str, name: str = "plan") -> httpx.Response:
    form = {"collection": "acme-plans", "id": name}
    return client.post("/api/ai/documents", data=form, files={"file": ("x.txt", words.encode())})


def put(client: httpx.Client, words: str, **params: str) -> httpx.Response:
    documents = {"collection": "acme-plans", "documents": [{"id": "plan", "text": words}]}
    return client.post("/api/ai/documents", json=documents, params=params)


def put_by_job(client: httpx.Client, words: str) -> httpx.Response:
    answer = put(client, words, **{"async": "true"})
    until_ended(client, answer.json()["jobId"])
    return answer


def put_table(client: httpx.Client, words: str) -> httpx.Response:
    file = ("s.csv", f"city,sold\n{words},1\n".encode())
    return client.post("/api/ai/tables", data={"name": "sales"}, files={"file": file})


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("way", [put, put_by_job, upload, put_table])
def test_a08_whatever_comes_in_under_another_tenants_name_is_a_thing_of_its_own(
    eve: httpx.Client, way: Callable[[httpx.Client, str], httpx.Response]
) -> None:
    answer = way(eve, "Umbrellas")
    assert answer.status_code in {201, 202}, answer.text
    url = "/api/ai/documents/plan?collection=acme-plans"
    if way is put_table:
        url = "/api/ai/tables/sales"
        assert [table["rows"] for table in eve.get("/api/ai/tables").json()["items"]] == [1]
    else:
        assert eve.get(url).json()["text"].strip() == "Umbrellas"
    assert eve.delete(url).status_code == 204
    assert eve.delete(url).status_code == 404


@pytest.mark.usefixtures("unharmed")
def test_a09_whoever_runs_a_tenant_sees_no_trace_cost_measure_or_trail_of_another(
    things: Things, eve: httpx.Client
) -> None:
    run = things.in_path["runs"]
    for path in (f"runs/{run}/spans", f"runs/{run}/feedback", f"runs/{run}"):
        assert eve.get(f"/api/ai/{path}").status_code == 404, path
    for path in ("usage?tenantId=acme", "usage?groupBy=tenant,user&tenantId=acme", "keys?tenantId=acme", "alerts"):
        assert eve.get(f"/api/ai/{path}").status_code == 403, path
    listed = [eve.get(f"/api/ai/{path}").text for path in ("usage?groupBy=tenant,user,run", "audit", "escalations")]
    assert not [text for text in listed if "acme" in text or "ada" in text or run in text]
