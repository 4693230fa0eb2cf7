"""Pilothouse as an MCP server: the SDK's own client over a real socket, two tenants, and what must not get in."""

import asyncio
import json
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from app.api.mcp import door
from tests.api.served import Served

ACCEPT = {"Accept": "application/json, text/event-stream"}
LEGACY, MODERN = "legacy", "2026-07-28"


@asynccontextmanager
async def connected(server: Served, who: str, mode: str = LEGACY) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {server.keys[who]}"}
    async with (
        httpx2.AsyncClient(headers=headers, trust_env=False, timeout=60) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


async def called(client: Client, name: str, **arguments: Any) -> CallToolResult:
    found = await client.call_tool(name, arguments)
    assert isinstance(found, CallToolResult)
    return found


def text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


@pytest.fixture(autouse=True, scope="module")
def _documents(server: Served) -> None:
    for who, words in (("ann", "The acme cat sleeps on the mat."), ("eve", "The umbrella dog barks at noon.")):
        note = {"collection": "pets", "documents": [{"id": "note", "title": "Note", "text": words}]}
        with server.client(who) as client:
            assert client.post("/api/ai/documents", json=note).status_code == 201


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_a_client_finds_the_tools_searches_and_asks(server: Served, mode: str) -> None:
    async with connected(server, "ann", mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["search", "ask"]
        found = await called(client, "search", query="where does the cat sleep", collection="pets", k=1)
        assert not found.is_error
        assert found.structured_content["results"][0]["documentId"] == "note"
        assert "The acme cat sleeps on the mat." in text(found)
        said = await called(client, "ask", message="say The cat sleeps.", mode="chat")
        assert text(said) == "The cat sleeps."
        assert said.structured_content["status"] == "completed"
    with server.client("ann") as ann:
        run = ann.get(f"/api/ai/runs/{said.structured_content['runId']}").json()
        assert run["status"] == "completed"


async def test_progress_is_told_while_a_run_goes_on(server: Served) -> None:
    heard: list[tuple[float, str | None]] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))
        if "passages" in (message or ""):
            server.release("mcp-progress")

    async with connected(server, "ann") as client:
        said = await client.call_tool(
            "ask",
            {"message": "hold the cat mcp-progress", "mode": "rag", "collection": "pets"},
            progress_callback=hear,
        )
    assert isinstance(said, CallToolResult)
    assert [progress for progress, _ in heard] == sorted(progress for progress, _ in heard)
    assert heard[0][1] == f"run {said.structured_content['runId']} has begun"
    assert any("passages found" in (message or "") for _, message in heard)


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_a_call_that_is_taken_back_takes_its_run_with_it(server: Served, mode: str) -> None:
    begun: asyncio.Queue[str] = asyncio.Queue()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        if message and message.startswith("run "):
            begun.put_nowait(message.split()[1])

    async with connected(server, "ann", mode) as client:
        arguments = {"message": f"hold mcp-back-{mode}", "mode": "chat"}
        calling = asyncio.create_task(client.call_tool("ask", arguments, progress_callback=hear))
        run_id = await asyncio.wait_for(begun.get(), 30)
        calling.cancel()
        await asyncio.wait({calling})
        async with asyncio.timeout(30):
            while status(server, run_id) == "running":
                await asyncio.sleep(0.05)
    assert status(server, run_id) == "cancelled"


def status(server: Served, run_id: str) -> str:
    with server.client("ann") as ann:
        found: str = ann.get(f"/api/ai/runs/{run_id}").json()["status"]
        return found


async def test_a_call_that_waits_for_a_person_names_the_approval(server: Served) -> None:
    async with connected(server, "ann") as client:
        said = await called(client, "ask", message="open a ticket", mode="agent")
    told = said.structured_content
    assert (told["status"], said.is_error) == ("waiting", False)
    assert told["approvalId"] in text(said)
    with server.client("ada") as ada:
        waiting = ada.get("/api/ai/approvals").json()["items"]
    assert told["approvalId"] in {each["id"] for each in waiting}


async def test_a04_nothing_of_another_tenant_is_found_or_gone_on_with(server: Served) -> None:
    async with connected(server, "ann") as ann, connected(server, "eve") as eve:
        mine = (await called(ann, "ask", message="say x", mode="chat")).structured_content
        for client, words in ((ann, "acme"), (eve, "umbrella")):
            found = await called(client, "search", query="cat or dog", collection="pets")
            assert {words in each["text"] for each in found.structured_content["results"]} == {True}
        stolen = await called(eve, "ask", message="say y", mode="chat", conversationId=mine["conversationId"])
        assert stolen.is_error
        assert stolen.structured_content["error"]["code"] == "not_found"


def wire(server: Served, who: str | None, body: Any, **headers: str) -> httpx.Response:
    with server.client(who) as client:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return client.post("/mcp", content=content, headers=ACCEPT | {"Content-Type": "application/json"} | headers)


def hello(server: Served, who: str) -> httpx.Response:
    client = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    return wire(server, who, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client})


LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}


@pytest.mark.parametrize("thief", ["eve", "al", "ada"])
def test_a05_a_session_is_not_there_for_another_key(server: Served, thief: str) -> None:
    session = {"Mcp-Session-Id": hello(server, "ann").headers["mcp-session-id"]}
    assert wire(server, "ann", LIST, **session).status_code == 200
    stolen, unknown = wire(server, thief, LIST, **session), wire(server, thief, LIST, **{"Mcp-Session-Id": "0" * 32})
    assert (stolen.status_code, stolen.content) == (unknown.status_code, unknown.content)
    assert stolen.status_code == 404
    with server.client(thief) as client:
        assert client.delete("/mcp", headers=session).status_code == 404
    with server.client("ann") as ann:
        assert ann.delete("/mcp", headers=session).status_code == 200
    assert wire(server, "ann", LIST, **session).status_code == 404


def test_a11_a_revoked_key_ends_with_its_sessions(server: Served, owner: httpx.Client) -> None:
    wanted = {"tenantId": "acme", "userId": "tim", "scopes": ["chat"]}
    made = owner.post("/api/ai/keys", json=wanted).json()
    server.keys["tim"] = made["key"]
    session = {"Mcp-Session-Id": hello(server, "tim").headers["mcp-session-id"]}
    assert owner.delete(f"/api/ai/keys/{made['keyId']}").status_code == 204
    refused = wire(server, "tim", LIST, **session)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_a02_the_door_is_guarded_like_every_other(server: Served) -> None:
    assert wire(server, None, LIST).status_code == 401
    assert wire(server, "ann", LIST, Origin="https://evil.example").status_code == 403
    assert wire(server, "ann", LIST, Host="evil.example").status_code == 400
    with server.client("ann") as ann:
        streamed = ann.get("/mcp", headers=ACCEPT)
    assert (streamed.status_code, streamed.headers["allow"]) == (405, "POST, DELETE")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b"x" * 1_000_000, 413),
        (b"[" * 5_000, 400),
        (b'{"jsonrpc": "2.0", "jsonrpc": "2.0", "id": 1, "method": "tools/list"}', 400),
        (b'{"a": NaN}', 400),
        (b"\xff", 400),
        (b"", 400),
    ],
)
def test_a_body_that_is_too_large_or_no_json_is_refused_before_the_sdk_sees_it(
    server: Served, body: bytes, refusal: int
) -> None:
    assert wire(server, "ann", body).status_code == refusal


async def test_a_caller_is_offered_what_its_scopes_allow_and_refused_the_rest(server: Served) -> None:
    async with connected(server, "reader") as client:
        assert (await client.list_tools()).tools == []
        for name, arguments in (("search", {"query": "x"}), ("ask", {"message": "x"})):
            refused = await called(client, name, **arguments)
            assert refused.is_error
            assert refused.structured_content["error"]["code"] == "forbidden"
        with pytest.raises(MCPError):
            await client.call_tool("delete_everything", {})


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("search", {"query": ""}, "query"),
        ("search", {"query": "x", "k": 1_000}, "k"),
        ("search", {"query": "x", "tenantId": "umbrella"}, "tenantId"),
        ("search", {"query": "x", "filter": {"$no": 1}}, "filter"),
        ("ask", {}, "message"),
        ("ask", {"message": "x", "mode": "root"}, "mode"),
    ],
)
async def test_arguments_that_do_not_fit_are_named(
    server: Served, name: str, arguments: dict[str, Any], field: str
) -> None:
    async with connected(server, "ann", MODERN) as client:
        refused = await called(client, name, **arguments)
    assert refused.is_error
    assert field in text(refused)


async def test_a_run_that_fails_says_so_with_its_id_and_no_stack(server: Served) -> None:
    async with connected(server, "ann") as client:
        failed = await called(client, "ask", message="fail", mode="chat")
    assert failed.is_error
    assert failed.structured_content["runId"] in text(failed)
    assert "Traceback" not in text(failed)


async def test_an_exhausted_allowance_is_told_as_everywhere(server: Served) -> None:
    async with connected(server, "pat", MODERN) as client:
        assert text(await called(client, "ask", message="say x", mode="chat")) == "x"
        refused = await called(client, "ask", message="say y", mode="chat")
    assert refused.is_error
    assert refused.structured_content["error"]["code"] == "rate_limited"
    assert refused.structured_content["error"]["retryAfterS"] > 0


def test_one_key_cannot_take_all_sessions(server: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_SESSIONS_EACH", 2)
    first = hello(server, "al")
    assert hello(server, "al").status_code == 200
    refused = hello(server, "al")
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exhausted")
    assert hello(server, "eve").status_code == 200
    with server.client("al") as al:
        al.delete("/mcp", headers={"Mcp-Session-Id": first.headers["mcp-session-id"]})
    assert hello(server, "al").status_code == 200


def test_sessions_that_are_opened_at_once_are_counted_too(
    server: Served, monkeypatch: pytest.MonkeyPatch, owner: httpx.Client
) -> None:
    monkeypatch.setattr(door, "MAX_SESSIONS_EACH", 3)
    made = owner.post("/api/ai/keys", json={"tenantId": "acme", "userId": "bo", "scopes": ["chat"]}).json()
    server.keys["bo"] = made["key"]
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: hello(server, "bo").status_code, range(12)))
    assert sorted(answers) == [200] * 3 + [429] * 9


@pytest.mark.parametrize("version", ["2025-11-25", MODERN])
def test_a_client_that_hangs_up_lets_go_of_its_run(server: Served, version: str) -> None:
    gate = f"mcp-gone-{version}"
    headers = {"MCP-Protocol-Version": version}
    if version == MODERN:
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "ask"}
    else:
        headers |= {"Mcp-Session-Id": hello(server, "ann").headers["mcp-session-id"]}
    meta = {
        "progressToken": 1,
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    asked = {"name": "ask", "arguments": {"message": f"hold {gate}", "mode": "chat"}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": asked}
    with server.client("ann") as client:
        content = json.dumps(body)
        sent = {"Content-Type": "application/json"} | ACCEPT | headers
        with client.stream("POST", "/mcp", content=content, headers=sent) as answer:
            assert answer.status_code == 200
            line = next(line for line in answer.iter_lines() if "has begun" in line)
    run_id = json.loads(line.partition(":")[2])["params"]["message"].split()[1]
    runner = server.bench.runner
    if version == MODERN:
        server.call(until(lambda: run_id not in runner._tasks))
        assert status(server, run_id) == "cancelled"
    else:  # it is let go, and ends as a run that nobody reads
        server.call(until(lambda: runner._live[run_id].readers == 0))
        server.release(gate)


async def until(holds: Any) -> None:
    async with asyncio.timeout(30):
        while not holds():
            await asyncio.sleep(0.02)
