"""The wire to an OIDC issuer: its discovery document, its keys, its token endpoint.

The issuer is named by the operator, never by a tenant or a token. Redirects are not followed, proxies of the
environment not used, answers bounded; only https, or http on loopback, is spoken.
"""

import ipaddress
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from graphs.errors import UpstreamError, UpstreamRejected

TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 1024 * 1024


class Issuer:
    """One issuer. The discovery document is read once and kept; an endpoint that moves needs a restart."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        """Raises ValueError for a URL that is neither https nor http on loopback."""
        if not _trustworthy(url):
            raise ValueError(f"the OIDC issuer must be https, or http on loopback, not {url}")
        self.url = url
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._discovered: Mapping[str, Any] | None = None

    async def metadata(self) -> Mapping[str, Any]:
        """The discovery document. Raises UpstreamError if it cannot be had or speaks for another issuer."""
        if self._discovered is None:
            found = await self._json("GET", self.url.rstrip("/") + "/.well-known/openid-configuration")
            if found.get("issuer") != self.url:
                raise UpstreamError(f"the discovery document of {self.url} names another issuer")
            self._discovered = found
        return self._discovered

    async def endpoint(self, name: str) -> str:
        """A URL of the discovery document. Raises UpstreamError if it is missing or not trustworthy."""
        url = (await self.metadata()).get(name)
        if not isinstance(url, str) or not _trustworthy(url):
            raise UpstreamError(f"the discovery document of {self.url} has no usable {name}")
        return url

    async def jwks(self) -> Mapping[str, Any]:
        """The issuer's keys as they are now. Raises UpstreamError."""
        return await self._json("GET", await self.endpoint("jwks_uri"))

    async def post(self, url: str, body: str, headers: Mapping[str, str]) -> Mapping[str, Any]:
        """A form to one of its endpoints. Raises UpstreamRejected for a 4xx answer, UpstreamError otherwise."""
        return await self._json("POST", url, data=body, headers=headers)

    async def _json(self, method: str, url: str, **options: Any) -> Mapping[str, Any]:
        try:
            # A session for each call: there are a few an hour.
            async with (
                aiohttp.ClientSession(timeout=self._timeout, trust_env=False) as session,
                session.request(method, url, allow_redirects=False, **options) as response,
            ):
                if 400 <= response.status < 500:
                    raise UpstreamRejected(f"the OIDC issuer refused with status {response.status}")
                if response.status != 200:
                    raise UpstreamError(f"the OIDC issuer answered with status {response.status}")
                found = json.loads(await _bounded(response))
        except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError) as error:
            raise UpstreamError("the OIDC issuer does not answer as it should", retry_after_s=5) from error
        if not isinstance(found, dict):
            raise UpstreamError("the OIDC issuer answered something other than a JSON object")
        return found


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
    return bytes(body)


def _trustworthy(url: str) -> bool:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    return parts.scheme == "http" and _is_loopback(parts.hostname or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
