"""Our HTTP client against servers that say whatever bytes a test gives them: whole, broken, hostile; on both loops."""

import asyncio
import gzip
import socket
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from app.services.gateway.connection import MAX_HEAD_BYTES, MAX_UNFOLDED_BYTES, Deadline
from app.services.gateway.link import Link, page
from graphs.errors import Invalid, UpstreamError, UpstreamTimeout

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json; charset=utf-8\r\n"
SHORT = OK + b"content-length: 2\r\n\r\n{}"


@dataclass
class Server:
    """`talk` answers each connection; `heads` are the requests' heads, `ended` counts connections that were closed."""

    talk: Talk
    port: int = 0
    heads: list[bytes] = field(default_factory=list)
    opened: int = 0
    ended: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        try:
            await self.talk(reader, writer)
        except ConnectionError:
            pass
        finally:
            self.ended.release()
            writer.close()

    async def asked(self, reader: asyncio.StreamReader) -> bytes:
        """The body of the next request; raises ConnectionError when there is none."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise ConnectionError from error
        self.heads.append(head)
        return await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))


@asynccontextmanager
async def serving(talk: Callable[[Server], Talk]) -> AsyncIterator[Server]:
    server = Server(lambda _reader, _writer: asyncio.sleep(0))
    server.talk = talk(server)
    listening = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server


def says(*pieces: bytes, then_close: bool = True) -> Callable[[Server], Talk]:
    """Answer the first request with these pieces, then close or stay silent."""

    def of(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await server.asked(reader)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.005)
            if not then_close:
                await reader.read()

        return talk

    return of


def repeats(answer: bytes) -> Callable[[Server], Talk]:
    """The same answer to every request of a connection."""

    def of(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                await server.asked(reader)
                writer.write(answer)

        return talk

    return of


def link_to(server: Server, url: str = "http://127.0.0.1:{port}/v1/x", **given: float | None) -> Link:
    return Link("m", url.format(port=server.port), {}, **{"connect_s": 1.0, **given})  # type: ignore[arg-type]


def soon(seconds: float = 2.0) -> Deadline:
    return Deadline(asyncio.get_running_loop().time() + seconds, "m took too long")


async def body_of(link: Link, payload: bytes = b"{}", seconds: float = 2.0) -> tuple[int, bytes]:
    with await link.post(payload, soon(seconds)) as response:
        return response.status, await page("m", response, lambda: soon(seconds))


WHOLE = {
    "a length": (SHORT,),
    "chunks": (OK + b"transfer-encoding: chunked\r\n\r\n", b"1\r\n{\r\n", b"1\r\n}\r\n0\r\n\r\n"),
    "chunks with spaces after their sizes": (OK + b"transfer-encoding: chunked\r\n\r\n2 \r\n{}\r\n0\r\n\r\n",),
    "up to the connection's end": (OK + b"\r\n{", b"}"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\n{}",),
    "one byte at a time": tuple(bytes([byte]) for byte in SHORT),
    "lines that end with LF alone": (SHORT.replace(b"\r\n", b"\n"),),
    "hints before the answer": (
        b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + SHORT,
    ),
    "gzip that was not asked for": (OK + b"content-encoding: gzip\r\n\r\n", gzip.compress(b"{}")),
    "deflate that was not asked for": (OK + b"content-encoding: deflate\r\n\r\n", zlib.compress(b"{}")),
}


@pytest.mark.parametrize("pieces", WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_is_whole_however_the_server_frames_it(pieces: tuple[bytes, ...]) -> None:
    async with serving(says(*pieces)) as server:
        link = link_to(server)
        assert await body_of(link) == (200, b"{}")
        await link.close()


ENDLESS = OK + b"x-long: " + b"x" * (MAX_HEAD_BYTES + 1)
MANY = OK + b"".join(b"x-%d: y\r\n" % number for number in range(MAX_HEAD_BYTES // 8))
BOMB = gzip.compress(b"\0" * (MAX_UNFOLDED_BYTES + 1))
CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"
BROKEN = {
    "nothing": (),
    "half a status line": (b"HTTP/1.1 2",),
    "half a head": (OK,),
    "another protocol": (b"220 mail.example ESMTP\r\n",),
    "TLS": (b"\x16\x03\x01\x00\x05hello",),
    "an upgrade": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",),
    "a body shorter than its length": (OK + b"content-length: 9\r\n\r\n{}",),
    "chunks without their end": (OK + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",),
    "a chunk whose size is no number": (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",),
    "two lengths": (OK + b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}",),
    "a length and chunks": (OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",),
    "a header without end": (ENDLESS, ENDLESS),
    "headers without end": (MANY, MANY),
    "a packing nobody asked for": (OK + b"content-encoding: br\r\n\r\n{}",),
    "gzip that is none": (OK + b"content-encoding: gzip\r\n\r\nnot gzip at all",),
    "a bomb": (OK + b"content-encoding: gzip\r\n\r\n" + BOMB,),
}


LAST = CHUNKED + b"0\r\n"
WITHOUT_END = {
    "a header": (ENDLESS,),
    "headers": (MANY,),
    "trailers": (LAST, *(MANY[at : at + 8_192] for at in range(len(OK), MAX_HEAD_BYTES + 16_384, 8_192))),
    "a trailer": (LAST + b"x-long: ", b"x" * MAX_HEAD_BYTES, b"x"),
    "a chunk's size": (CHUNKED + b"2;x=", b"x" * MAX_HEAD_BYTES, b"x"),
}


@pytest.mark.parametrize("pieces", WITHOUT_END.values(), ids=WITHOUT_END.keys())
async def test_u03_what_has_no_end_is_given_up_before_its_deadline(pieces: tuple[bytes, ...]) -> None:
    async with serving(says(*pieces, then_close=False)) as server:
        link = link_to(server)
        with pytest.raises(UpstreamError, match="answer has no end"):
            await body_of(link)
        await link.close()


@pytest.mark.parametrize("pieces", BROKEN.values(), ids=BROKEN.keys())
async def test_u06_u09_what_is_no_whole_answer_is_an_error_and_closes_the_connection(pieces: tuple[bytes, ...]) -> None:
    async with serving(says(*pieces)) as server:
        link = link_to(server)
        with pytest.raises(UpstreamError) as raised:
            await body_of(link)
        async with asyncio.timeout(2):
            await server.ended.acquire()
        await link.close()
    assert type(raised.value) is UpstreamError
    assert raised.value.message.startswith("m ")


async def test_a_kept_connection_serves_call_after_call() -> None:
    async with serving(repeats(SHORT)) as server:
        link = link_to(server)
        for _ in range(5):
            assert await body_of(link) == (200, b"{}")
        await link.close()
    assert server.opened == 1
    assert len(server.heads) == 5


@pytest.mark.parametrize("answer", [SHORT.replace(b"200 OK\r\n", b"200 OK\r\nconnection: close\r\n"), SHORT])
async def test_a_connection_that_either_side_will_not_keep_is_not_used_again(answer: bytes) -> None:
    keep_alive_s = None if answer == SHORT else 15.0
    async with serving(repeats(answer)) as server:
        link = link_to(server, keep_alive_s=keep_alive_s)
        for _ in range(2):
            await body_of(link)
        await link.close()
    assert server.opened == 2


async def test_a_connection_is_not_kept_longer_than_it_may_be() -> None:
    async with serving(repeats(SHORT)) as server:
        link = link_to(server, keep_alive_s=0.05)
        await body_of(link)
        async with asyncio.timeout(2):
            await server.ended.acquire()  # closed by itself, with nobody calling
        assert await body_of(link) == (200, b"{}")
        await link.close()
    assert server.opened == 2


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used() -> None:
    async with serving(says(SHORT)) as server:
        link = link_to(server)
        await body_of(link)
        await server.ended.acquire()
        await asyncio.sleep(0.05)
        assert await body_of(link) == (200, b"{}")
        await link.close()
    assert server.opened == 2


@pytest.mark.parametrize("late", [False, True], ids=["with the first", "after the first"])
async def test_an_answer_that_nobody_asked_for_is_given_to_nobody(late: bool) -> None:
    """A second answer smuggled behind the first would be the next caller's, of another tenant perhaps."""
    smuggled = SHORT.replace(b"{}", b"[]")
    async with serving(says(*((SHORT, smuggled) if late else (SHORT + smuggled,)), then_close=False)) as server:
        link = link_to(server)
        with await link.post(b"{}", soon()) as response:
            assert await page("m", response, soon) == b"{}"
            assert response.status == 200
            if late:
                await asyncio.sleep(0.1)
        async with asyncio.timeout(2):
            await server.ended.acquire()
        server.talk = repeats(SHORT)(server)
        assert await body_of(link) == (200, b"{}")
        await link.close()


async def test_u03_the_wait_for_the_head_and_for_the_body_each_end_at_their_deadline() -> None:
    for said in (b"", OK + b"content-length: 9\r\n\r\n{"):
        async with serving(says(said, then_close=False)) as server:
            link = link_to(server)
            with pytest.raises(UpstreamTimeout, match="too long"):
                await body_of(link, seconds=0.1)
            async with asyncio.timeout(2):
                await server.ended.acquire()
            await link.close()


async def test_u10_leaving_before_the_end_closes_the_upstream_at_once() -> None:
    async with serving(says(OK + b"content-length: 9\r\n\r\n{", then_close=False)) as server:
        link = link_to(server)
        with await link.post(b"{}", soon()) as response:
            assert await response.read(soon()) == b"{"
        async with asyncio.timeout(2):
            await server.ended.acquire()
        await link.close()


async def test_a_cancelled_call_closes_its_connection_and_gives_its_place_back() -> None:
    async with serving(says(then_close=False)) as server:
        link = link_to(server, max_connections=1)
        waiting = asyncio.create_task(link.post(b"{}", soon()))
        while not server.heads:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        server.talk = repeats(SHORT)(server)
        assert await body_of(link) == (200, b"{}")
        await link.close()


async def test_no_more_connections_open_than_are_allowed_and_waiting_ends_at_the_deadline() -> None:
    async with serving(repeats(SHORT)) as server:
        link = link_to(server, max_connections=2)
        held = [await link.post(b"{}", soon()) for _ in range(2)]
        with pytest.raises(UpstreamTimeout):
            await link.post(b"{}", soon(0.05))
        answers = asyncio.gather(*(body_of(link) for _ in range(20)))
        await asyncio.sleep(0.02)
        for response in held:
            with response:
                await page("m", response, soon)
        assert await answers == [(200, b"{}")] * 20
        await link.close()
    assert server.opened == 2


async def test_a_server_that_sends_faster_than_it_is_read_has_to_wait() -> None:
    sent = 0

    def floods(server: Server) -> Talk:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal sent
            await server.asked(reader)
            writer.write(OK + b"transfer-encoding: chunked\r\n\r\n")
            for _ in range(1_000):
                writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                await writer.drain()
                sent += 65_536
            writer.write(b"0\r\n\r\n")

        return talk

    async with serving(floods) as server:
        link = link_to(server)
        with await link.post(b"{}", soon()) as response:
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 32 << 20, "the socket's buffers hold the rest"
            assert len(await page("m", response, lambda: soon(20), 1 << 27)) == 1_000 * 65_536
        await link.close()


async def test_closing_ends_calls_in_flight_and_refuses_later_ones() -> None:
    async with serving(says(OK + b"content-length: 9\r\n\r\n{", then_close=False)) as server:
        link = link_to(server)
        with await link.post(b"{}", soon()) as response:
            await response.read(soon())
            await link.close()
            await link.close()
            with pytest.raises(UpstreamError, match="closed"):
                await response.read(soon())
        with pytest.raises(UpstreamError, match="closed"):
            await link.post(b"{}", soon())


async def test_a_link_that_is_closed_has_hung_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        link = Link("m", f"http://127.0.0.1:{listener.getsockname()[1]}/v1/x", {}, connect_s=1.0)
        asking = asyncio.create_task(link.post(b"{}", soon(20)))
        peer, _ = await asyncio.to_thread(listener.accept)
        with peer:
            peer.settimeout(5)
            await asyncio.to_thread(peer.recv, 65_536)
            peer.sendall(OK + b"content-length: 9\r\n\r\n{")
            with await asking:
                await link.close()
                assert peer.recv(1) == b"", "this wait holds the loop up, and nothing else would close the socket"


async def test_the_request_says_what_the_url_and_the_headers_say() -> None:
    async with serving(repeats(SHORT)) as server:
        url = f"http://ann:s%40y@localhost:{server.port}/a b/é?v=1&x=ü"
        link = Link("m", url, {"X-Key": "k"}, connect_s=1.0)
        await body_of(link, b'{"a":1}')
        await link.close()
    (head,) = server.heads
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /a%20b/%C3%A9?v=1&x=%C3%BC HTTP/1.1"
    assert f"Host: localhost:{server.port}" in lines
    assert "Authorization: Basic YW5uOnNAeQ==" in lines
    assert "X-Key: k" in lines
    assert "Content-Length: 7" in lines


@pytest.mark.parametrize("value", ["k\r\nX-Other: 1", "k\n", "k\0", "ключ"])
def test_a_header_that_would_break_the_request_is_refused_without_its_value(value: str) -> None:
    with pytest.raises(Invalid) as raised:
        Link("m", "http://127.0.0.1/v1", {"Authorization": value}, connect_s=1.0)
    assert value not in raised.value.message


async def test_a_server_whose_certificate_is_not_trusted_gets_no_prompt() -> None:
    async with serving(repeats(SHORT)) as server:
        link = link_to(server, "https://127.0.0.1:{port}/v1/x")
        with pytest.raises(UpstreamError, match="cannot be reached"):
            await body_of(link)
        await link.close()
    assert server.heads == []
