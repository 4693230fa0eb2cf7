"""The socket's writes: a head goes with its body, and does not wait for one that takes longer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from starlette.types import Receive, Scope, Send

from app.joined import JoinedProtocol

HEAD = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = uvicorn.Config(app, port=0, http=JoinedProtocol, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
    try:
        yield reader, writer
    finally:
        writer.close()
        server.should_exit = True
        await running


async def test_a_head_and_its_body_come_together() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await send({"type": "http.response.body", "body": b"{}"})

    async with serving(app) as (reader, writer):
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            got = await reader.read(65_536)
            assert got.startswith(b"HTTP/1.1 200 OK\r\n")
            assert got.endswith(b"\r\n\r\n{}")


async def test_a_head_does_not_wait_for_a_body_that_takes_longer() -> None:
    go_on = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD)
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"{}"})

    async with serving(app) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            go_on.set()
            assert await reader.readexactly(2) == b"{}"
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_connection_that_closes_after_its_answer_gives_all_of_it() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(HEAD | {"headers": [*HEAD["headers"], (b"connection", b"close")]})
        await send({"type": "http.response.body", "body": b"{}"})

    async with serving(app) as (reader, writer):
        writer.write(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
        got = await asyncio.wait_for(reader.read(), 5)
    assert got.endswith(b"\r\n\r\n")
    assert b"200 OK" in got
