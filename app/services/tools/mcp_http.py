"""The way to an MCP server over HTTP: the operator's URL and nothing else.

No proxy of the environment, no redirect, no packed bodies (what they unpack to has no bound here), and an answer of
bounded size. A stream of events has no end; of one event there is a bound, which the SDK keeps.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Final

import httpx2

MAX_BODY_BYTES: Final = 4 << 20
MAX_EVENT_BYTES: Final = 4 << 20


def http_client(headers: Mapping[str, str], connect_timeout_s: float) -> httpx2.AsyncClient:
    """To be closed by its user. Reads wait as long as somebody waits for them: calls have their own deadline."""
    return httpx2.AsyncClient(
        headers={"User-Agent": "pilothouse", **headers, "Accept-Encoding": "identity"},
        timeout=httpx2.Timeout(connect_timeout_s, read=None),
        transport=_Bounded(),
        trust_env=False,
        follow_redirects=False,
        max_redirects=0,
    )


class _Bounded(httpx2.AsyncBaseTransport):
    """The usual transport, with a bound on bodies that end."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        assert isinstance(response.stream, httpx2.AsyncByteStream), "the inner transport streams"
        packed = response.headers.get("content-encoding", "identity").lower() != "identity"
        if packed or not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = _Body(response.stream, 0 if packed else MAX_BODY_BYTES)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Body(httpx2.AsyncByteStream):
    """Raises StreamError, which the SDK makes the failure of the one call, for more than `most_bytes`."""

    def __init__(self, inner: httpx2.AsyncByteStream, most_bytes: int) -> None:
        self._inner, self._most_bytes = inner, most_bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size_bytes = 0
        async for piece in self._inner:
            size_bytes += len(piece)
            if size_bytes > self._most_bytes:
                raise httpx2.StreamError(f"the answer has more than {self._most_bytes} bytes, or is packed")
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()
