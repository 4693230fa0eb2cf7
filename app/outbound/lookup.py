"""From a host to the addresses that a connection may use: asked once, all of them checked, none asked again."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import ip_address
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.outbound.addresses import Address
from app.outbound.errors import OutboundRefused
from app.outbound.policy import Reach
from graphs.errors import UpstreamError

REFUSAL: Final = "the URL leads to no address that requests of this use may go to"

Lookup = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a name. Raises OSError; socket.gaierror for a name that has none."""


async def system_lookup(host: str, port: int) -> Sequence[str]:
    """What the system's resolver says."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in found]


async def admitted(url: URL, reach: Reach, lookup: Lookup) -> tuple[Address, ...]:
    """The addresses of a URL's host, if each one may be reached. Raises OutboundRefused; UpstreamError if the name
    cannot be looked up just now."""
    host = url.raw_host or ""
    if not reach.names_host(host):
        raise OutboundRefused(REFUSAL)
    try:
        found = _literal(host) or tuple(map(ip_address, await lookup(host, url.port or 0)))
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise UpstreamError("the URL's host cannot be looked up just now", retry_after_s=5) from error
        raise OutboundRefused(REFUSAL) from error
    except (OSError, UnicodeError, ValueError) as error:
        raise OutboundRefused(REFUSAL) from error
    if not found or not all(reach.admits(host, address) for address in found):
        raise OutboundRefused(REFUSAL)
    return tuple(dict.fromkeys(found))


def _literal(host: str) -> tuple[Address, ...]:
    try:
        return (ip_address(host),)
    except ValueError:
        return ()


class Pinned(AbstractResolver):
    """A resolver that knows one host's checked addresses and nothing else."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""
