"""The chat socket: the same events, one run at a time, and no patience for noise."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from socket import SHUT_RDWR
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from app.api.ws import MAX_MISTAKES, MAX_SOCKETS
from tests.api.served import Served


@contextmanager
def opened(server: Served, who: str | None = "ann") -> Iterator[ClientConnection]:
    headers = {"X-API-Key": server.keys[who]} if who else {}
    url = server.url.replace("http", "ws", 1) + "/api/ai/chat/ws"
    with connect(url, additional_headers=headers, proxy=None) as socket:
        yield socket


def said(socket: ClientConnection, message: Any) -> None:
    socket.send(message if isinstance(message, str | bytes) else json.dumps(message))


def heard(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(timeout=30))
    return message


def until_end(socket: ClientConnection) -> list[dict[str, Any]]:
    found = [heard(socket)]
    while found[-1]["type"] not in {"run.completed", "run.failed", "approval.required", "error"}:
        found.append(heard(socket))
    return found


def test_the_events_are_those_of_the_stream(server: Served) -> None:
    with opened(server) as socket:
        for text in ("one two", "three"):
            said(socket, {"type": "chat", "message": f"say {text}"})
            events = until_end(socket)
            assert [event["id"] for event in events] == list(range(1, len(events) + 1))
            assert events[0]["type"] == "run.started"
            assert events[-1]["data"]["card"]["answer"] == text


def test_the_key_may_come_in_the_first_message(server: Served) -> None:
    with opened(server, None) as socket:
        said(socket, {"type": "auth", "key": server.keys["ann"]})
        assert heard(socket) == {"id": None, "type": "auth.accepted", "data": {}}
        said(socket, {"type": "chat", "message": "say hi"})
        assert until_end(socket)[-1]["data"]["card"]["answer"] == "hi"


def test_a_run_is_cancelled_and_a_second_one_refused(server: Served) -> None:
    with opened(server) as socket:
        said(socket, {"type": "chat", "message": "hold socket"})
        while heard(socket)["type"] != "message.delta":
            pass
        said(socket, {"type": "chat", "message": "say x"})
        assert until_end(socket)[-1]["data"]["code"] == "conflict"
        said(socket, {"type": "cancel"})
        assert until_end(socket)[-1]["data"]["error"]["code"] == "cancelled"


def test_a05_c04_a_run_is_taken_up_again_over_another_socket_by_whoever_may_see_it(server: Served) -> None:
    with opened(server) as socket:
        said(socket, {"type": "chat", "message": "hold again"})
        while (seen := heard(socket))["type"] != "message.delta":
            run_id = seen["data"]["requestId"]
    with opened(server, "eve") as stranger, opened(server) as socket:
        said(stranger, {"type": "attach", "requestId": run_id})
        assert until_end(stranger)[-1]["data"]["code"] == "not_found"
        said(socket, {"type": "attach", "requestId": run_id, "after": seen["id"]})
        server.release("again")
        rest = until_end(socket)
        assert [event["id"] for event in rest] == list(range(seen["id"] + 1, seen["id"] + 1 + len(rest)))
        assert rest[-1]["data"]["card"]["answer"] == "one two three"


@pytest.mark.parametrize(
    "message",
    [
        "{",
        "[]",
        "1",
        {},
        {"type": "x"},
        {"type": "chat"},
        {"type": "chat", "message": ""},
        {"type": "cancel"},
        {"type": "attach"},
    ],
)
def test_a_mistake_is_explained_and_the_socket_stays(server: Served, message: Any) -> None:
    with opened(server) as socket:
        said(socket, message)
        assert heard(socket)["type"] == "error"
        said(socket, {"type": "chat", "message": "say x"})
        assert until_end(socket)[-1]["type"] == "run.completed"


def test_a04_another_tenants_conversation_is_missing_here_too(server: Served) -> None:
    with server.client("ann") as ann:
        conversation = ann.post("/api/ai/chat", json={"message": "say x"}).json()["conversationId"]
    with opened(server, "eve") as socket:
        said(socket, {"type": "chat", "message": "say x", "conversationId": conversation})
        assert heard(socket)["data"]["code"] == "not_found"


def code_of(socket: ClientConnection) -> int | None:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout=30)
    return closed.value.rcvd.code if closed.value.rcvd else None


def test_v10_noise_closes_the_socket(server: Served) -> None:
    with opened(server) as socket:
        for _ in range(MAX_MISTAKES):
            said(socket, "{")
        assert code_of(socket) == 1008


def test_the_longest_message_in_its_widest_spelling_starts_a_run(server: Served) -> None:
    """Each character an escaped surrogate pair, twelve bytes on the wire."""
    longest = "\N{GRINNING FACE}" * server.bench.settings.max_message_chars
    with opened(server) as socket:
        said(socket, json.dumps({"type": "chat", "message": longest}, ensure_ascii=True))
        assert until_end(socket)[0]["type"] == "run.started"


def test_v10_a_frame_that_is_too_big_closes_the_socket(server: Served) -> None:
    with opened(server) as socket:
        said(socket, "x" * (1024 * 1024))
        assert code_of(socket) == 1009


def test_v10_a_user_has_so_many_sockets_and_no_more(server: Served) -> None:
    with ExitStack() as stack:
        for _ in range(MAX_SOCKETS):
            said(stack.enter_context(opened(server, "al")), {"type": "cancel"})
        assert code_of(stack.enter_context(opened(server, "al"))) == 1008
    with opened(server, "al") as socket:  # they are free again
        said(socket, {"type": "chat", "message": "say x"})
        assert until_end(socket)[-1]["type"] == "run.completed"


def test_a_binary_frame_closes_the_socket(server: Served) -> None:
    with opened(server) as socket:
        said(socket, b"\x00\x01")
        assert code_of(socket) == 1003


def test_a11_a_revoked_key_asks_no_more_on_an_open_socket(server: Served) -> None:
    with server.client("owner") as owner:
        body = {"tenantId": "acme", "userId": "lee", "scopes": ["chat"], "name": "short"}
        made = owner.post("/api/ai/keys", json=body).json()
        server.keys["lee"] = made["key"]
        with opened(server, "lee") as socket:
            said(socket, {"type": "chat", "message": "say x"})
            until_end(socket)
            owner.delete(f"/api/ai/keys/{made['keyId']}")
            said(socket, {"type": "chat", "message": "say x"})
            assert code_of(socket) == 1008


@pytest.mark.parametrize("cut", [False, True], ids=["closed", "cut"])
@pytest.mark.parametrize(("decision", "tickets"), [("deny", 0), ("approve", 1)])
def test_c06_a_run_whose_socket_goes_at_an_approval_waits_and_goes_on_once(
    server: Served, cut: bool, decision: str, tickets: int
) -> None:
    with opened(server) as socket:
        said(socket, {"type": "chat", "message": "a ticket please", "mode": "agent"})
        events = until_end(socket)
        if cut:
            socket.socket.shutdown(SHUT_RDWR)  # as a cable does, without a closing handshake
    asked, run = events[-1], events[0]["data"]["requestId"]
    assert asked["type"] == "approval.required"
    with server.client("ada") as ada:
        assert ada.get(f"/api/ai/runs/{run}").json()["status"] == "waiting"
        url = f"/api/ai/approvals/{asked['data']['approvalId']}"
        assert ada.post(url, json={"decision": decision}).status_code == 200
        assert ada.post(url, json={"decision": "approve"}).status_code == 409
    with opened(server) as socket:
        said(socket, {"type": "attach", "requestId": run, "after": asked["id"]})
        rest = until_end(socket)
    assert rest[-1]["type"] == "run.completed"
    assert [event["id"] for event in rest] == list(range(asked["id"] + 1, asked["id"] + 1 + len(rest)))
    with server.client("ada") as ada:
        made = [item for item in ada.get("/api/ai/tickets").json()["items"] if item["requestId"] == run]
    assert len(made) == tickets
