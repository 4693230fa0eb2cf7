"""Every route needs a credential, except those that one file names. The list of routes is the application's own."""

import io
import json
import logging
import re
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from app.api.app import create_api
from app.api.public import HEALTH, LOGIN, PUBLIC, SELF_AUTHENTICATING_SOCKETS
from app.services.store.database import StoreUnavailable
from app.settings import Settings
from app.telemetry.logs import configure_logging
from app.telemetry.metrics import Metrics
from tests.api.served import OWNER_KEY, Served

SETTINGS = Settings()


def leaves(routes: list[BaseRoute]) -> Iterator[tuple[str, str]]:
    """Method and path of every route, mounts and included routers walked; parameters get a value."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if isinstance(route, Mount):
            yield "GET", filled(route.path) + "/anything"
        elif isinstance(route, WebSocketRoute):
            yield "WEBSOCKET", filled(route.path)
        elif isinstance(route, Route | APIRoute):
            yield from ((method, filled(route.path)) for method in sorted(route.methods or ()))
        elif included is not None:
            yield from leaves(included.routes)
        else:
            raise AssertionError(f"the walk does not know {type(route)}")


def filled(path: str) -> str:
    return re.sub(r"{[^}]*}", "0" * 32, path)


ROUTES = sorted(set(leaves(create_api(SETTINGS).routes)))
GUARDED = [(method, path) for method, path in ROUTES if path not in PUBLIC and method != "WEBSOCKET"]
# What a mounted console and unknown paths would be: nothing is open because no route of ours names it.
ELSEWHERE = [("GET", "/console"), ("GET", "/console/gradio_api/startup-events"), ("POST", "/console/gradio_api/cancel")]
ELSEWHERE += [("GET", "/nothing"), ("GET", "/metrics/"), ("POST", "/v1/chat/completions"), ("GET", "/healthz/")]

# The test's own socket is one of this machine, which `/metrics` answers; what a proxy forwards is not.
FROM_ELSEWHERE = {"X-Forwarded-For": "203.0.113.7"}


def test_a02_the_walk_finds_the_routes() -> None:
    assert len(GUARDED) > 25
    assert ("POST", "/api/ai/chat") in GUARDED
    assert ("GET", "/openapi.json") in GUARDED
    assert {path for _, path in ROUTES if path in PUBLIC} == PUBLIC
    assert {path for method, path in ROUTES if method == "WEBSOCKET"} == SELF_AUTHENTICATING_SOCKETS


@pytest.mark.parametrize(("method", "path"), GUARDED + ELSEWHERE)
def test_a02_no_route_answers_without_a_credential(nobody: httpx.Client, method: str, path: str) -> None:
    answer = nobody.request(method, path, json={}, headers=FROM_ELSEWHERE)
    assert answer.status_code == 401
    if method != "HEAD":
        told = answer.json()
        assert told.get("error", told)["code"] == "unauthenticated"  # `/v1` has the error body of its clients' wire
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(("method", "path"), GUARDED + ELSEWHERE)
@pytest.mark.parametrize("key", ["wrong", "ph_" + "0" * 32 + "_" + "A" * 43])
def test_a02_no_route_answers_to_a_wrong_key(nobody: httpx.Client, method: str, path: str, key: str) -> None:
    assert nobody.request(method, path, headers={"Authorization": f"Bearer {key}"}).status_code == 401
    assert nobody.request(method, path, headers={"X-API-Key": key}).status_code == 401


def test_a17_a_key_in_the_query_string_opens_nothing(server: Served, nobody: httpx.Client) -> None:
    for name in ("key", "api_key", "token", "access_token"):
        assert nobody.get("/api/ai/runs", params={name: server.keys["ann"]}).status_code == 401


def test_a17_guesses_of_one_key_are_made_to_wait_and_nobody_else_is(server: Served, nobody: httpx.Client) -> None:
    victim = "ph_" + "7" * 32  # of nobody: whom it were would have to wait too
    answers = [nobody.get("/api/ai/runs", headers={"X-API-Key": f"{victim}_{number:043}"}) for number in range(25)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429] * 5
    assert 0 < int(answers[-1].headers["retry-after"]) <= 60
    assert nobody.get("/api/ai/runs", headers={"X-API-Key": server.keys["ann"]}).status_code == 200


def test_a17_no_log_tells_a_key_wherever_it_was_sent(
    server: Served, nobody: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right ones and wrong ones; in headers, in the path, in the query, in a form, in a body and in a failure."""
    root, told = logging.getLogger(), io.StringIO()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    configure_logging("DEBUG", told)
    keys = [server.keys["ann"], OWNER_KEY, "ph_" + "1" * 32 + "_" + "Q" * 43]
    try:
        for key in keys:
            for headers in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"Basic {key}"}):
                nobody.get("/api/ai/runs", headers=headers)
                nobody.get("/v1/models", headers=headers)
                nobody.post("/api/ai/chat", headers=headers, content=b"{" + key.encode())
            # In a path only what has a key's shape can be known as one; the owner's may have any.
            places = ("/api/ai/runs/", "/v1/models/", "/") if key.startswith("ph_") else ()
            for path in (*(place + key for place in places), f"/login?token={key}", f"/?key={key}"):
                nobody.get(path)
                nobody.get(path, headers={"X-API-Key": server.keys["ann"]})
            nobody.post("/login", data={"key": key, "next": key})
            nobody.get("/console", headers={"Cookie": f"pilothouse_session={key}"})
    finally:
        root.setLevel(level)
        logging.captureWarnings(False)
    # Without the client's, in this process too, and uvicorn's access log, which the product has off when it begins.
    others = ("http", "uvicorn.access")
    ours = [line for line in told.getvalue().splitlines() if not json.loads(line)["logger"].startswith(others)]
    lines = "\n".join(ours)
    assert lines.count("pilothouse.access") > 40
    assert [key for key in keys if key in lines or key.rpartition("_")[2] in lines] == []


@pytest.mark.parametrize("path", sorted(HEALTH))
def test_health_answers_everybody(nobody: httpx.Client, path: str) -> None:
    assert nobody.get(path).status_code == 200


@pytest.mark.parametrize("host", ["x/healthz?", "x/healthz#", "x\\healthz", "a@127.0.0.1", "127.0.0.1/healthz?"])
def test_a01_a_crafted_host_opens_no_route(server: Served, nobody: httpx.Client, host: str) -> None:
    for method, path in GUARDED + ELSEWHERE:
        for named in (host, f"{host}:{server.address[1]}"):
            assert nobody.request(method, path, headers={"Host": named}).status_code in {400, 401}, (
                method,
                path,
                named,
            )


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "0.0.0.0", "localhost."]
)
def test_a18_only_named_hosts_are_answered(ann: httpx.Client, host: str) -> None:
    answer = ann.get("/api/ai/runs", headers={"Host": host})
    assert (answer.status_code, answer.json()["code"]) == (400, "unknown_host")


def test_a18_a_name_that_was_rebound_to_this_machine_opens_nothing_not_even_with_a_key(
    server: Served, ann: httpx.Client
) -> None:
    """A page of evil.example whose name now leads here sends its own name as Host, and its own origin fits it."""
    evil = {"Host": f"evil.example:{server.address[1]}", "Origin": f"http://evil.example:{server.address[1]}"}
    doors = ["/", "/healthz", "/login", "/console", "/metrics", "/openapi.json", "/mcp", "/v1/models"]
    for path in doors:
        assert ann.get(path, headers=evil).status_code == 400, path
    for path in (
        "/api/ai/chat",
        "/v1/chat/completions",
        "/v1/messages",
        "/mcp",
        "/login",
        "/console/gradio_api/queue/join",
    ):
        assert ann.post(path, json={}, headers=evil).status_code == 400, path
    with socket.create_connection(server.address, timeout=20) as wire, pytest.raises(InvalidStatus) as refused:
        connect(socket_url(server).replace("127.0.0.1", "evil.example"), sock=wire, proxy=None)
    assert refused.value.response.status_code == 400


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/mcp", "/login"])
@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_a18_a_page_of_another_site_writes_at_no_door(ann: httpx.Client, path: str, origin: str) -> None:
    assert ann.post(path, json={}, headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:9", "[::1]", "[::1]:8000"])
def test_a_named_host_may_come_with_any_port(ann: httpx.Client, host: str) -> None:
    assert ann.get("/api/ai/runs", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", ""])
def test_a18_another_site_cannot_make_the_browser_write(ann: httpx.Client, origin: str) -> None:
    answer = ann.post("/api/ai/chat", json={"message": "say x"}, headers={"Origin": origin})
    assert (answer.status_code, answer.json()["code"]) == (403, "foreign_origin")


def test_a_page_of_ours_may_write(server: Served, ann: httpx.Client) -> None:
    answer = ann.post("/api/ai/chat", json={"message": "say x"}, headers={"Origin": server.url})
    assert answer.status_code == 200


def socket_url(server: Served) -> str:
    return server.url.replace("http", "ws", 1) + "/api/ai/chat/ws"


def test_a02_a_socket_without_a_credential_hears_nothing(server: Served) -> None:
    for first in ({"type": "chat", "message": "say x"}, {"type": "auth", "key": "wrong"}, {"type": "auth", "key": 1}):
        with connect(socket_url(server), proxy=None) as socket:
            socket.send(json.dumps(first))
            with pytest.raises(ConnectionClosed) as closed:
                socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008


def test_a02_a_socket_with_a_wrong_key_is_refused_in_the_handshake(server: Served) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(socket_url(server), additional_headers={"X-API-Key": "wrong"}, proxy=None)
    assert refused.value.response.status_code == 401


def test_a18_a_page_of_another_site_cannot_open_a_socket(server: Served) -> None:
    headers = {"X-API-Key": server.keys["ann"]}
    with pytest.raises(InvalidStatus) as refused:
        connect(socket_url(server), additional_headers=headers, origin=Origin("https://evil.example"), proxy=None)
    assert refused.value.response.status_code == 403


async def test_a02_until_the_bench_is_open_only_health_answers() -> None:
    transport = httpx.ASGITransport(create_api(SETTINGS))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        assert (await client.get("/healthz")).status_code == 200
        for path in ["/readyz", "/api/ai/runs", "/console", "/openapi.json", *sorted(LOGIN)]:
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "starting")
            assert answer.headers["retry-after"] == "1"


async def test_until_the_console_is_mounted_its_address_says_that_it_is_starting() -> None:
    api = create_api(SETTINGS)
    counting = SimpleNamespace(watch=SimpleNamespace(metrics=Metrics()))  # all that a refused request touches
    api.state.bench, api.state.console_opening = counting, True
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        for path in ("/", "/console", "/console/"):
            page = await client.get(path, headers={"Accept": "text/html"})
            assert (page.status_code, page.headers["retry-after"]) == (503, "2")
            assert "<h1>Starting</h1>" in page.text
        assert (await client.get("/console/config")).json()["code"] == "starting"
        assert (await client.get("/api/ai/runs")).status_code == 401


def test_readiness_tells_the_trace_backlog_and_fails_with_the_store(
    server: Served, nobody: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready = nobody.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "traceBacklog": server.call(server.bench.store.runs.backlog())}

    async def away() -> int:
        raise StoreUnavailable("the database does not answer")

    monkeypatch.setattr(server.bench.store.runs, "backlog", away)
    assert nobody.get("/readyz").status_code == 503
    assert nobody.get("/healthz").status_code == 200


def test_every_answer_carries_the_security_headers(ann: httpx.Client, nobody: httpx.Client) -> None:
    for answer in (
        ann.get("/api/ai/runs"),
        nobody.get("/api/ai/runs"),
        nobody.get("/login"),
        nobody.get("/healthz"),
        ann.get("/api/ai/nothing"),
        ann.post("/api/ai/chat", content=b"{"),
    ):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
