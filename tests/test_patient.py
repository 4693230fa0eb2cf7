"""Clients that keep a server waiting, or make it hold much: they are let go, and nobody else is."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from app import patient
from app.joined import JoinedProtocol
from app.patient import MAX_HEAD_BYTES, MAX_PIECES, PatientSocket

CROWD = 100
HANDSHAKE = (
    b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


class Hasty(JoinedProtocol):
    head_s, body_idle_s, body_s, look_s = 0.5, 0.5, 1.5, 0.1


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads what comes to its end and says how much that was; a socket's messages likewise."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": str(len(message["text"]))})
        return
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"%4d" % size})


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[str, int]]:
    config = uvicorn.Config(
        app, port=0, http=Hasty, ws=PatientSocket, ws_max_size=65_536, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    yield host, port
    server.should_exit = True
    await running


async def until_gone(address: tuple[str, int], first: bytes, drip: bytes) -> None:
    """Send, then a byte at a time, until the server has had enough."""
    _, writer = await asyncio.open_connection(*address)
    writer.write(first)
    async with asyncio.timeout(20):
        try:
            while True:
                writer.write(drip)
                await writer.drain()
                await asyncio.sleep(0.05)
        except ConnectionError:
            writer.close()


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\nhost: a\r\n", b""),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: ", b"y"),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", b""),
        (b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n", b"y"),
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nx: ", b"y"),
    ],
    ids=["nothing", "half a head", "a dripping head", "no body", "a dripping body", "a dripping second head"],
)
async def test_v05_who_sends_too_slowly_is_let_go(first: bytes, drip: bytes) -> None:
    async with serving() as address:
        if drip:
            await until_gone(address, first, drip)
        else:
            reader, writer = await asyncio.open_connection(*address)
            writer.write(first)
            async with asyncio.timeout(20):
                with pytest.raises(ConnectionError):
                    assert not await reader.read()
                    raise ConnectionResetError
            writer.close()


async def test_v05_hundreds_who_send_nothing_keep_nobody_waiting_and_are_let_go() -> None:
    async with serving() as address:
        crowd = [await asyncio.open_connection(*address) for _ in range(CROWD)]
        for _, writer in crowd:
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n")
        url = "http://{}:{}".format(*address)
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=10) as client:
            answers = [await client.post("/", content=b"four") for _ in range(10)]
        assert {answer.text for answer in answers} == {"   4"}
        async with asyncio.timeout(20):
            left = [await asyncio.gather(reader.read(), return_exceptions=True) for reader, _ in crowd]
        assert len(left) == CROWD
        for _, writer in crowd:
            writer.close()


async def test_a_connection_of_several_requests_lives_longer_than_each_may_take() -> None:
    async with serving() as address, httpx.AsyncClient(trust_env=False) as client:
        for _ in range(4):
            assert (await client.post("http://{}:{}".format(*address), content=b"four")).text == "   4"
            await asyncio.sleep(0.3)


async def test_v03_a_head_that_never_ends_is_refused() -> None:
    async with serving() as address:
        _, writer = await asyncio.open_connection(*address)
        sent = 0
        with pytest.raises(ConnectionError):
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n")
            while sent < 1_000 * MAX_HEAD_BYTES:
                writer.write(b"x: " + b"y" * 1024 + b"\r\n")
                await writer.drain()
                await asyncio.sleep(0)
                sent += 1024
        writer.close()


async def test_v10_messages_in_endless_pieces_close_their_socket() -> None:
    async with serving() as address, connect("ws://{}:{}".format(*address), proxy=None) as wire:
        await wire.send(["a"] * (MAX_PIECES // 2))
        assert await wire.recv() == str(MAX_PIECES // 2)
        with pytest.raises(ConnectionClosed) as closed:
            await wire.send("" for _ in range(2 * MAX_PIECES))
            await wire.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_v10_a_small_frame_that_unpacks_into_a_large_one_closes_its_socket() -> None:
    async with serving() as address, connect("ws://{}:{}".format(*address), proxy=None, compression="deflate") as wire:
        with pytest.raises(ConnectionClosed) as closed:
            await wire.send("a" * 5_000_000)
            await wire.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1009


async def test_v05_who_asks_for_answers_and_never_reads_them_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patient, "MAX_UNREAD_BYTES", 65_536)
    ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)

    def ask(address: tuple[str, int]) -> None:
        with socket.socket() as wire:
            wire.settimeout(60)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8_192)  # a window that is full soon
            wire.connect(address)
            wire.sendall(HANDSHAKE)
            assert wire.recv(4096).startswith(b"HTTP/1.1 101 ")
            while True:
                wire.sendall(ping * 500)

    async with serving() as address:
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(ask, address)
