"""The guarded client: one request, to an address that was checked, with an answer of bounded size in bounded time.

Each hop is a connection of its own to exactly the addresses that were looked up and checked for it, under the name of
the URL (Host, SNI, certificate). No cookies, no proxies or passwords of the environment, no retries.
"""

import asyncio
import logging
import ssl
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector
from multidict import CIMultiDictProxy
from yarl import URL

from app.outbound.errors import AnswerUnexpected, OutboundRefused, RedirectsEndless, UrlInvalid
from app.outbound.lookup import REFUSAL, Lookup, Pinned, admitted, system_lookup
from app.outbound.policy import Limits, Reach
from app.outbound.reply import Reply, media_type, whole_body
from app.outbound.url import read
from graphs.errors import UpstreamError, UpstreamTimeout

log = logging.getLogger("pilothouse.outbound")

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_REPEATABLE: Final = frozenset({"GET", "HEAD"})
# What may follow a redirect to another origin; an API key can stand in any header that is not named here.
_ANONYMOUS: Final = frozenset({"accept", "accept-language", "user-agent"})
_OURS: Final = {"User-Agent": "pilothouse", "Accept-Encoding": "gzip, deflate"}


class Outbound:
    """A client for one use. Holds nothing open between requests, so it need not be closed."""

    def __init__(
        self,
        reach: Reach,
        limits: Limits,
        *,
        lookup: Lookup = system_lookup,
        certificates: ssl.SSLContext | None = None,
    ) -> None:
        """`certificates` None trusts those of the system."""
        self._reach, self._limits, self._lookup = reach, limits, lookup
        self._certificates: ssl.SSLContext | bool = certificates or True

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        """The answer, whatever its status. Redirects are followed for GET and HEAD, as many as the limits allow; where
        they allow none the redirect is the answer.

        Raises UrlInvalid, OutboundRefused, AnswerTooLarge, AnswerUnexpected, UpstreamTimeout and UpstreamError.
        """
        target = read(url)
        # The URL itself may hold a secret; its hash lets two lines, or a line and a URL, be compared.
        log.info("outbound", extra={"host": target.raw_host, "urlHash": sha256(url.encode("utf-8")).hexdigest()})
        total_s = self._limits.total_s
        try:
            async with asyncio.timeout(total_s):
                return await self._follow(method, target, {**_OURS, **(headers or {})}, body)
        except TimeoutError as error:
            raise UpstreamTimeout(f"the server did not answer within {total_s:g} s") from error

    async def _follow(self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None) -> Reply:
        follows = method in _REPEATABLE and self._limits.redirects > 0
        for _ in range(self._limits.redirects + 1):
            found = await self._hop(method, url, headers, body, follows=follows)
            if isinstance(found, Reply):
                return found
            if found.origin() != url.origin():
                headers = {name: value for name, value in headers.items() if name.lower() in _ANONYMOUS}
            url = found
        raise RedirectsEndless(f"the server redirects more than {self._limits.redirects} times")

    async def _hop(
        self, method: str, url: URL, headers: Mapping[str, str], body: bytes | None, *, follows: bool
    ) -> Reply | URL:
        """The answer, or where it redirects to."""
        addresses = await admitted(url, self._reach, self._lookup)
        try:
            async with (
                ClientSession(
                    connector=TCPConnector(
                        resolver=Pinned(addresses), use_dns_cache=False, force_close=True, ssl=self._certificates
                    ),
                    timeout=ClientTimeout(total=None),  # the deadline is over all hops
                    cookie_jar=DummyCookieJar(),
                    trust_env=False,
                    auto_decompress=False,
                ) as session,
                session.request(method, url, headers=headers, data=body, allow_redirects=False) as response,
            ):
                if follows and response.status in _REDIRECTS and "Location" in response.headers:
                    return _redirected(url, response.headers["Location"])
                return await self._reply(url, response)
        except (ClientError, OSError, ValueError) as error:
            # Their words can hold the address.
            raise UpstreamError(f"the server cannot be reached or breaks off ({type(error).__name__})") from error

    async def _reply(self, url: URL, response: ClientResponse) -> Reply:
        headers, wanted = _first_of_each(response.headers), self._limits.content_types
        if wanted is not None and response.ok and media_type(headers) not in wanted:
            raise AnswerUnexpected("the answer is of a type that is not taken here")
        max_bytes = self._limits.max_bytes
        body = await whole_body(response, headers, max_bytes) if max_bytes else b""
        return Reply(response.status, str(url), headers, body)


def _redirected(url: URL, location: str) -> URL:
    """Where a redirect leads. Raises OutboundRefused for no such URL as we send requests to, and for leaving https."""
    try:
        found = read(location, url)
    except UrlInvalid as error:
        raise OutboundRefused(REFUSAL) from error
    if url.scheme == "https" and found.scheme != "https":
        raise OutboundRefused(REFUSAL)
    return found


def _first_of_each(headers: CIMultiDictProxy[str]) -> dict[str, str]:
    return {name.lower(): headers[name] for name in headers}
