"""The wire to an OIDC issuer: its discovery document, its keys, its token endpoint.

The issuer is named by the operator, never by a tenant or a token, so its host may be inside; what its discovery
document points to may be there only where the operator lists it. Only https, or http on loopback, is spoken.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any, Final

from app.outbound.client import Outbound
from app.outbound.errors import UrlInvalid
from app.outbound.policy import Limits, Reach
from app.outbound.url import read
from graphs.errors import PilothouseError, UpstreamError, UpstreamRejected

TIMEOUT_S: Final = 5.0
MAX_BYTES: Final = 1024 * 1024
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})  # one machine, whichever name a document uses
ANYWHERE_PUBLIC: Final = Reach()
NO_HEADERS: Final[Mapping[str, str]] = {}


class Issuer:
    """One issuer. The discovery document is read once and kept; an endpoint that moves needs a restart."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, reach: Reach = ANYWHERE_PUBLIC) -> None:
        """Its own host need not be in `reach`.

        Raises ValueError for a URL that is neither https nor http on loopback.
        """
        if not _trustworthy(url):
            raise ValueError(f"the OIDC issuer must be https, or http on loopback, not {url}")
        self.url = url
        own = Reach.to(url).hosts
        named = reach.hosts | (LOOPBACK if own <= LOOPBACK else own)
        self._outbound = Outbound(replace(reach, hosts=named), Limits(total_s=timeout_s, max_bytes=MAX_BYTES))
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
        return await self._json("POST", url, body.encode(), headers)

    async def _json(
        self, method: str, url: str, body: bytes | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> Mapping[str, Any]:
        try:
            reply = await self._outbound.send(method, url, headers=headers, body=body)
        except PilothouseError as error:
            raise UpstreamError("the OIDC issuer does not answer as it should", retry_after_s=5) from error
        if 400 <= reply.status < 500:
            raise UpstreamRejected(f"the OIDC issuer refused with status {reply.status}")
        if reply.status != 200:
            raise UpstreamError(f"the OIDC issuer answered with status {reply.status}")
        try:
            found = json.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise UpstreamError("the OIDC issuer does not answer as it should", retry_after_s=5) from error
        if not isinstance(found, dict):
            raise UpstreamError("the OIDC issuer answered something other than a JSON object")
        return found


def _trustworthy(url: str) -> bool:
    try:
        parts = read(url)
    except UrlInvalid:
        return False
    return parts.scheme == "https" or _is_loopback(parts.raw_host or "")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
