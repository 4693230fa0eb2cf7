"""Clients that go away, or stop reading: the model's stream ends at once, and the call is on the books."""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from app.api.v1.client import Client, Streamed
from app.services.quota.usage import UsageBook
from tests.api.served import Served
from tests.api.v1.upstream import Upstream

PATHS: dict[str, Callable[[str], dict[str, Any]]] = {
    "/v1/chat/completions": lambda text: {"messages": [{"role": "user", "content": text}]},
    "/v1/responses": lambda text: {"input": text},
    "/v1/messages": lambda text: {"messages": [{"role": "user", "content": text}], "max_tokens": 50},
}


@contextmanager
def asking(door: Served, path: str, feature: str, *, read_bytes: int = 0, **body: Any) -> Iterator[socket.socket]:
    """A request on the bare wire, whose sender is gone after the block."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {door.keys['ann']}\r\n"
        f"X-Pilothouse-Feature: {feature}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.socket() as wire:
        if read_bytes:
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_bytes)
        wire.settimeout(20)
        wire.connect(door.address)
        wire.sendall(head.encode() + content)
        yield wire


def until(true: Callable[[], bool], told: str) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline, told
        time.sleep(0.01)


def outcomes(door: Served, feature: str) -> dict[str, tuple[int, int]]:
    """The calls of a feature on the books, by outcome: how many, and their cost in micro-dollars."""
    book = UsageBook(door.bench.store.database)
    report = door.call(book.report(group_by=("feature", "outcome"), tenant_id="acme", since=None, until=None))
    return {row.keys[1]: (row.totals.calls, row.totals.cost_micros) for row in report.rows if row.keys[0] == feature}


@pytest.mark.parametrize("path", PATHS)
def test_c01_a_client_that_leaves_mid_stream_ends_the_upstream_and_the_call_is_booked(
    door: Served, lab: Upstream, path: str
) -> None:
    feature = "c01" + path
    body = PATHS[path]("hold") | {"model": "big", "stream": True}
    with asking(door, path, feature, **body) as wire:
        said = wire.recv(65_536)
        while b"data: " not in said:
            said += wire.recv(65_536)
        assert not lab.left.is_set()
    assert lab.left.wait(5)
    until(lambda: "cancelled" in outcomes(door, feature), "the call is not on the books")
    calls, cost_micros = outcomes(door, feature)["cancelled"]
    assert calls == 1
    assert cost_micros > 0
    until(lambda: door.bench.desk.places.running == 0, "its place is still taken")


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", PATHS)
def test_c02_a_client_that_leaves_before_the_first_byte_does_too(
    door: Served, lab: Upstream, path: str, stream: bool
) -> None:
    feature = f"c02{path}{stream}"
    with asking(door, path, feature, model="big", stream=stream, **PATHS[path]("wait")):
        assert lab.asked.wait(20)
    assert lab.left.wait(5)
    until(lambda: "cancelled" in outcomes(door, feature), "the call is not on the books")
    until(lambda: door.bench.desk.places.running == 0, "its place is still taken")


def test_c01_a_client_that_leaves_a_graph_ends_its_run_at_once(door: Served, lab: Upstream) -> None:
    body = PATHS["/v1/chat/completions"]("hold") | {"model": "pilothouse/chat", "stream": True}
    with asking(door, "/v1/chat/completions", "c01-graph", **body):
        assert lab.asked.wait(20)
    assert lab.left.wait(5)  # elsewhere a run waits ten seconds for a reader to come back
    with door.client("ann") as http:

        def last_run() -> Any:
            return http.get("/api/ai/runs", params={"limit": 1}).json()["items"][0]

        until(lambda: last_run()["status"] == "cancelled", "the run goes on")


def test_c03_a_client_that_does_not_read_holds_the_upstream_back(door: Served, lab: Upstream) -> None:
    body = PATHS["/v1/chat/completions"]("endless") | {"model": "big", "stream": True}
    with asking(door, "/v1/chat/completions", "c03", read_bytes=4_096, **body) as wire:
        assert lab.asked.wait(20)
        seen = -1
        while seen != lab.sent_bytes:  # until the buffers between them are full
            seen = lab.sent_bytes
            time.sleep(0.3)
        assert 0 < seen < 32 << 20
        wire.recv(1)
    assert lab.left.wait(5)


async def test_c03_a_client_that_stops_reading_is_let_go() -> None:
    closed = asyncio.Event()

    async def frames() -> Any:
        try:
            while True:
                yield b"data: x\n\n"
        finally:
            closed.set()

    sent = 0

    async def send(message: Any) -> None:
        nonlocal sent
        sent += 1
        if sent > 10:
            await asyncio.Event().wait()  # the socket's buffers are full and stay so

    async def receive() -> Any:
        return await asyncio.Event().wait()

    with Client(receive, send, patience_s=0.02) as client:
        await client.take(Streamed(frames()), [], "id")
    assert closed.is_set()
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_slow_reader_is_served_to_the_end() -> None:
    async def frames() -> Any:
        for _ in range(40):
            yield b"data: x\n\n"

    sent: list[Any] = []

    async def send(message: Any) -> None:
        await asyncio.sleep(0.005)
        sent.append(message)

    async def receive() -> Any:
        return await asyncio.Event().wait()

    with Client(receive, send, patience_s=0.1) as client:
        await client.take(Streamed(frames()), [], "id")
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert len(sent) == 42
