"""Servers on loopback that answer as told, raw, and remember who asked; and names that lead to them."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from ssl import SSLContext

from app.outbound.lookup import Lookup
from app.outbound.policy import Reach

LOCAL = Reach(networks=(ip_network("127.0.0.0/8"),))
"""The internet, and loopback, where the tests' servers are."""

Answer = Callable[[str], bytes]
"""From a request's path to the bytes of the whole answer."""


@dataclass
class Server:
    """`requests` are the heads that came, whole."""

    port: int = 0
    requests: list[str] = field(default_factory=list)

    def url(self, path: str = "/", host: str = "127.0.0.1", scheme: str = "http") -> str:
        return f"{scheme}://{host}:{self.port}{path}"

    def header(self, name: str, request: int = -1) -> str | None:
        for line in self.requests[request].split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None


def answer(body: bytes = b"hello", *headers: str, status: str = "200 OK") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(b"", f"Location: {location}", status=status)


@asynccontextmanager
async def serving(
    answers: Answer,
    *,
    tls: SSLContext | None = None,
    then: Callable[[asyncio.StreamWriter], Awaitable[None]] | None = None,
) -> AsyncIterator[Server]:
    """`then` goes on writing after the answer."""
    server = Server()

    tasks: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            server.requests.append(head)
            writer.write(answers(head.split(" ")[1]))
            await writer.drain()
            if then is not None:
                await then(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has left, or the test is over
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in filter(None, tasks):
            task.cancel()
            await asyncio.wait({task})


@dataclass
class Names:
    """A resolver: each name has its answers, one list a question; the last one stays. `asked` are the questions."""

    known: dict[str, list[Sequence[str]]]
    asked: list[str] = field(default_factory=list)

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        if host not in self.known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        answers = self.known[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def named(**hosts: str) -> Lookup:
    """Names like `a_test` for a.test, each with one address that stays."""
    return Names({host.replace("_", "."): [[address]] for host, address in hosts.items()})
