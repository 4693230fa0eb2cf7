"""A model server that fails on the wire as a test tells it to, below HTTP where need be, on a loopback port."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import orjson

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HALF = ("One ", "two ", "three ")


def piece(text: str | None = None, *, finish: str | None = None, **fields: object) -> bytes:
    delta = {} if text is None else {"content": text}
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **fields}
    # NaN by hand: orjson writes none.
    return b"data: " + orjson.dumps(chunk).replace(b'"NaN"', b"NaN") + b"\n\n"


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


async def send(writer: asyncio.StreamWriter, *pieces: bytes) -> None:
    for each in pieces:
        writer.write(framed(each))
        await writer.drain()
        await asyncio.sleep(0)


async def silent(writer: asyncio.StreamWriter) -> None:
    """Takes the request and says nothing."""
    await asyncio.Event().wait()


async def head_only(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await asyncio.Event().wait()


async def drips(writer: asyncio.StreamWriter) -> None:
    """A byte now and then, for ever: no read of it ever times out."""
    writer.write(HEAD)
    for byte in b": " + b"." * 100_000:
        writer.write(framed(bytes([byte])))
        await writer.drain()
        await asyncio.sleep(0.01)


async def tokens_then_nothing(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await send(writer, *map(piece, HALF))
    await asyncio.Event().wait()


async def tokens_for_ever(writer: asyncio.StreamWriter) -> None:
    """Each in time, and no end."""
    writer.write(HEAD)
    while True:
        await send(writer, piece("on and "))
        await asyncio.sleep(0.01)


async def tokens_then_reset(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await send(writer, piece(), *map(piece, HALF))
    await asyncio.sleep(0.02)
    found = writer.get_extra_info("socket")
    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # close sends RST, not FIN
    writer.transport.abort()


async def half_a_stream(writer: asyncio.StreamWriter) -> None:
    """Ends well by HTTP, in the middle of the answer."""
    writer.write(HEAD)
    await send(writer, *map(piece, HALF))
    writer.write(b"0\r\n\r\n")


async def reset_at_once(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x16\x03\x01\x00 this is not HTTP\r\n\r\n")


def answers(status: str, body: bytes, kind: str = "application/json", **headers: str) -> Behaviour:
    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)

    return answer


def failed(status: int, **error: str) -> Behaviour:
    return answers(f"{status} Failed", orjson.dumps({"error": {"message": "no", **error}}))


async def error_inside_a_200(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD)
    await send(writer, b'data: {"error": {"message": "overloaded", "code": 503}}\n\n')
    writer.write(b"0\r\n\r\n")


async def not_a_number(writer: asyncio.StreamWriter) -> None:
    """A whole answer whose usage is none."""
    writer.write(HEAD)
    usage = {"prompt_tokens": "NaN", "completion_tokens": -7, "total_tokens": 1e308}
    await send(writer, piece("Hello"), piece(finish="stop"), piece(choices=[], usage=usage), b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


async def hello(writer: asyncio.StreamWriter) -> None:
    """A whole answer."""
    writer.write(HEAD)
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    await send(writer, piece("Hello "), piece("you"), piece(finish="stop"), piece(choices=[], usage=usage))
    await send(writer, b"data: [DONE]\n\n")
    writer.write(b"0\r\n\r\n")


@asynccontextmanager
async def chaos(behave: Behaviour, bodies: list[dict[str, object]] | None = None) -> AsyncIterator[str]:
    """Its URL. `bodies` collects what it was asked."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("content-length:"))
            body = await reader.readexactly(length)
            if bodies is not None:
                bodies.append(orjson.loads(body))
            await behave(writer)
            await writer.drain()
        writer.close()
        serving.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        if serving:
            await asyncio.wait(serving)


def closed_port() -> str:
    """A URL where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"
