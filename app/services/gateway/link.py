"""HTTP to a model server, whatever its wire: one session, responses that end with their call, deadlines of our own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from app.services.gateway.upstream import failure, retry_after
from app.services.gateway.wire import parse
from graphs.errors import Invalid, UpstreamError, UpstreamTimeout

MAX_PAGE_BYTES: Final = 1 << 22  # an answer that does not stream, or an error's page
_REST_S: Final = 0.02


class Link:
    """The way to one model server. Made inside or outside a loop; the session opens at the first call.

    `name` is the model's, for messages; `keep_alive_s` None opens a connection for each call. Never retries.
    """

    def __init__(
        self,
        name: str,
        headers: Mapping[str, str],
        *,
        connect_s: float,
        keep_alive_s: float | None = 15.0,
        max_connections: int = 256,
    ) -> None:
        self._name, self._headers, self._connect_s = name, dict(headers), connect_s
        self._keep_alive_s, self._max_connections = keep_alive_s, max_connections
        self._session: aiohttp.ClientSession | None = None
        self._responses: set[aiohttp.ClientResponse] = set()
        self._closed = False

    @asynccontextmanager
    async def post(self, url: str, payload: bytes, head: "Deadline") -> AsyncIterator[aiohttp.ClientResponse]:
        """The response, whose head must come within `head`. Leaving before its end closes the upstream at once.

        What breaks in here, also while the caller reads, is raised as UpstreamError or UpstreamTimeout.
        """
        response: aiohttp.ClientResponse | None = None
        try:
            async with head:
                response = await self._open().post(url, data=payload, allow_redirects=False)
            self._responses.add(response)
            yield response
        except aiohttp.ConnectionTimeoutError as error:
            # No timeout of the model's: nothing was sent, so there is nothing to pay.
            raise UpstreamError(f"{self._name} cannot be reached in time") from error
        except TimeoutError as error:  # aiohttp's is a ClientError too, hence first
            raise UpstreamTimeout(f"{self._name} did not answer in time") from error
        except aiohttp.ClientError as error:
            # The exception's own words can hold the URL and its query; the caller learns what broke.
            raise UpstreamError(f"{self._name} cannot be reached or broke off ({type(error).__name__})") from error
        finally:
            if response is not None:
                self._responses.discard(response)
                # A body not read to its end closes its connection at once, and with it the upstream's work.
                if not response.content.at_eof():
                    response.close()

    async def close(self) -> None:
        self._closed = True
        for response in tuple(self._responses):
            response.close()  # a closing session drops its connections without a word to those who read them
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise UpstreamError(f"{self._name} is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_s),
                headers={"Content-Type": "application/json", "Accept": "text/event-stream", **self._headers},
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # a proxy variable meant for something else must not see prompts
            )
        return self._session

    def _connector(self) -> aiohttp.TCPConnector:
        if self._keep_alive_s is None:
            return aiohttp.TCPConnector(limit=self._max_connections, force_close=True)
        return aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=self._keep_alive_s)


class Deadline:
    """asyncio.timeout_at that raises UpstreamTimeout with the name of what was waited for."""

    def __init__(self, at: float, told: str) -> None:
        self._timeout, self._told = asyncio.timeout_at(at), told

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, *raised: Any) -> None:
        try:
            await self._timeout.__aexit__(*raised)
        except TimeoutError as error:
            raise UpstreamTimeout(self._told) from error


def checked_url(base_url: str, field: str) -> str:
    """The URL without a slash at its end. Raises Invalid for one that is not of HTTP."""
    parts = urlsplit(base_url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise Invalid("the model server's base URL must be http:// or https://", field=field)
    return base_url.rstrip("/")


async def page(
    name: str, response: aiohttp.ClientResponse, deadline: Callable[[], Deadline], max_bytes: int = MAX_PAGE_BYTES
) -> bytes:
    """The whole body, each wait for more of it bounded by a new deadline. Raises UpstreamError for one too large."""
    pieces: list[bytes] = []
    size_bytes = 0
    while True:
        async with deadline():
            piece = await response.content.readany()
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)
        size_bytes += len(piece)
        if size_bytes > max_bytes:
            raise UpstreamError(f"{name} answered with more than {max_bytes} bytes")


async def refusal(
    name: str, response: aiohttp.ClientResponse, secret: str, body: Callable[[], Awaitable[bytes]]
) -> UpstreamError:
    """The error for a status that is not 200; a body that cannot be read does not change which one."""
    said: Any = ""
    with suppress(aiohttp.ClientError, UpstreamError):
        said = (await body()).decode("utf-8", "replace")
    with suppress(ValueError, RecursionError):
        said = parse(said)
    while isinstance(said, list) and said:
        said = said[0]
    error = said.get("error", said) if isinstance(said, dict) else said
    return failure(name, response.status, error, secret=secret, retry_after_s=retry_after(response.headers))


async def drain(response: aiohttp.ClientResponse) -> None:
    """See the end of the body after a whole answer, so that the connection can serve again."""
    if response.content.at_eof():
        return
    with suppress(TimeoutError, aiohttp.ClientError):  # the answer is given: nothing here can spoil it
        async with asyncio.timeout(_REST_S):
            await response.content.readany()
