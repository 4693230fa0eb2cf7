"""The way to a model server, whatever its wire: connections that are kept, answers that end with their call."""

import asyncio
import socket
import ssl
from base64 import b64encode
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from aiohappyeyeballs import start_connection

from app.services.gateway.connection import Connection, Deadline, Response
from app.services.gateway.upstream import failure, retry_after
from app.services.gateway.wire import parse
from graphs.errors import Invalid, UpstreamError, UpstreamTimeout

MAX_PAGE_BYTES: Final = 1 << 22  # an answer that does not stream, or an error's page
REMEMBER_S: Final = 10.0
_REST_S: Final = 0.02
_QUERY: Final = "/%:@!$&'()*+,;=~?"
_SECOND_ADDRESS_S: Final = 0.25  # RFC 8305: how long one address of a host is tried before the next one beside it


class Link:
    """Posts to one URL of a model server. Made inside or outside a loop; connections open with the first call.

    `name` is the model's, for messages; `keep_alive_s` None opens a connection for each call. Never retries, follows no
    redirect, and takes no proxy from the environment: a variable meant for something else must not see prompts.
    """

    def __init__(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        keep_alive_s: float | None = 15.0,
        max_connections: int = 256,
    ) -> None:
        """Raises Invalid for a URL or header that HTTP cannot carry."""
        self._name, self._connect_s, self._keep_alive_s = name, connect_s, keep_alive_s
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._is_address = _is_address(self._host)
        self._found: list[Any] = []
        self._found_until = 0.0
        self._head = _head(url, headers, keep_alive=keep_alive_s is not None)
        self._places = asyncio.Semaphore(max_connections)
        self._idle: list[Connection] = []
        self._live: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._closed = False

    async def post(self, payload: bytes, head: Deadline) -> Response:
        """The response, whose head must come within `head`. What breaks is raised as UpstreamError or UpstreamTimeout,
        here and while the response is read."""
        connection = await self._take(head)
        response = connection.send(b"%b%d\r\n\r\n%b" % (self._head, len(payload), payload))
        try:
            await response.begin(head)
        except BaseException:
            connection.leave(response)
            raise
        return response

    async def close(self) -> None:
        """End what is in flight. The sockets are closed when this returns."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in tuple(self._live):
            connection.fail("is closed")
        # A transport closes its socket in the loop's next turn. A llama.cpp in this process that is let go before
        # that waits for its reader's next sign of life, 30 s, and holds the interpreter's lock meanwhile.
        await asyncio.sleep(0)

    async def _take(self, head: Deadline) -> Connection:
        """A connection of the caller's own, until it leaves its response."""
        if self._places.locked():
            try:
                async with asyncio.timeout_at(head.at):
                    await self._places.acquire()
            except TimeoutError as error:
                raise UpstreamTimeout(f"{self._name} was given no connection in time") from error
        else:
            await self._places.acquire()
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable and now - connection.idle_since < (self._keep_alive_s or 0.0):
                return connection
            connection.abort()
            self._live.discard(connection)
        try:
            return await self._connect(head)
        except BaseException:
            self._places.release()
            raise

    async def _connect(self, head: Deadline) -> Connection:
        self._refuse_closed()
        loop = asyncio.get_running_loop()
        until = loop.time() + self._connect_s
        try:
            async with asyncio.timeout_at(min(until, head.at)):
                connection = await self._open()
        except TimeoutError as error:
            if head.at < until:
                raise UpstreamTimeout(head.told) from error
            # No timeout of the model's: nothing was sent, so there is nothing to pay.
            raise UpstreamError(f"{self._name} cannot be reached in time") from error
        except (OSError, UnicodeError) as error:
            # The exception's own words can hold the address; the caller learns what broke.
            raise UpstreamError(f"{self._name} cannot be reached ({type(error).__name__})") from error
        self._live.add(connection)
        try:
            self._refuse_closed()
        except UpstreamError:
            connection.abort()
            raise
        return connection

    async def _open(self) -> Connection:
        loop = asyncio.get_running_loop()
        tls: dict[str, Any] = {"ssl": _trusted(), "server_hostname": self._host} if self._tls else {}

        def made() -> Connection:
            return Connection(self._name, self._left)

        if self._is_address:
            return (await loop.create_connection(made, self._host, self._port, **tls))[1]
        sock = await start_connection(await self._addresses(), happy_eyeballs_delay=_SECOND_ADDRESS_S)
        return (await loop.create_connection(made, sock=sock, **tls))[1]

    async def _addresses(self) -> list[Any]:
        """The host's addresses; asked anew every REMEMBER_S, since a burst of calls opens many connections at once."""
        loop = asyncio.get_running_loop()
        if not self._found or loop.time() >= self._found_until:
            self._found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            self._found_until = loop.time() + REMEMBER_S
        return self._found

    def _refuse_closed(self) -> None:
        if self._closed:
            raise UpstreamError(f"{self._name} is closed")

    def _left(self, connection: Connection) -> None:
        """An exchange is over; the connection may serve another."""
        self._places.release()
        if not connection.reusable or self._keep_alive_s is None or self._closed:
            connection.abort()
            self._live.discard(connection)
            return
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._keep_alive_s, self._sweep)

    def _sweep(self) -> None:
        """Close what has been idle too long or was closed by the server."""
        loop, keep_alive_s = asyncio.get_running_loop(), self._keep_alive_s or 0.0
        kept: list[Connection] = []
        for connection in self._idle:
            if connection.reusable and loop.time() - connection.idle_since < keep_alive_s:
                kept.append(connection)
            else:
                connection.abort()
                self._live.discard(connection)
        self._idle = kept
        self._sweeping = loop.call_later(keep_alive_s, self._sweep) if kept else None


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


@cache
def _trusted() -> ssl.SSLContext:
    """The system's certificates; reading them takes some 20 ms."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _head(url: str, headers: Mapping[str, str], *, keep_alive: bool) -> bytes:
    """A request's head up to the length of its body. Raises Invalid."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    sent = {
        "Host": host if host.isascii() else host.encode("idna").decode(),
        "User-Agent": "pilothouse",
        "Content-Type": "application/json",
        "Accept": "text/event-stream",
        "Accept-Encoding": "identity",
        "Connection": "keep-alive" if keep_alive else "close",
    }
    if parts.username:
        named = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        sent["Authorization"] = "Basic " + b64encode(named.encode()).decode()
    sent |= headers
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + (
        f"?{quote(parts.query, safe=_QUERY)}" if parts.query else ""
    )
    for name, value in sent.items():
        if not value.isprintable() or not value.isascii():
            raise Invalid(f"the header {name} of a model server has characters that HTTP cannot carry")
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items()), "Content-Length: "]
    return "\r\n".join(lines).encode("ascii")


def checked_url(base_url: str, field: str) -> str:
    """The URL without a slash at its end. Raises Invalid for one that is not of HTTP."""
    try:
        parts = urlsplit(base_url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        sound = False
    if not sound:
        raise Invalid("the model server's base URL must be http:// or https://", field=field)
    return base_url.rstrip("/")


async def page(
    name: str, response: Response, deadline: Callable[[], Deadline], max_bytes: int = MAX_PAGE_BYTES
) -> bytes:
    """The whole body, each wait for more of it bounded by a new deadline. Raises UpstreamError for one too large."""
    pieces: list[bytes] = []
    size_bytes = 0
    while piece := await response.read(deadline()):
        pieces.append(piece)
        size_bytes += len(piece)
        if size_bytes > max_bytes:
            raise UpstreamError(f"{name} answered with more than {max_bytes} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def refusal(name: str, response: Response, secret: str, body: Callable[[], Awaitable[bytes]]) -> UpstreamError:
    """The error for a status that is not 200; a body that cannot be read does not change which one."""
    said: Any = ""
    with suppress(UpstreamError):
        said = (await body()).decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        said = parse(said)
    while isinstance(said, list) and said:
        said = said[0]
    error = said.get("error", said) if isinstance(said, dict) else said
    return failure(name, response.status, error, secret=secret, retry_after_s=retry_after(response.headers))


async def drain(response: Response) -> None:
    """See the end of the body after a whole answer, so that the connection can serve again."""
    if not response.ended:
        with suppress(UpstreamError):  # the answer is given: nothing here can spoil it
            await response.read(Deadline(asyncio.get_running_loop().time() + _REST_S, "the end of the body"))
