"""What requests of one use may do: where they may go, and how much of an answer is taken."""

from dataclasses import dataclass
from typing import Self

from app.config.schema import ReachConfig
from app.outbound.addresses import Address, Network, is_inside, is_public, unwrapped
from app.outbound.url import host_name, read


@dataclass(frozen=True, slots=True)
class Reach:
    """Where requests may go.

    `hosts` are names that the operator vouches for: they may have addresses inside, link-local ones excepted. What lies
    in `networks` may be reached by any name. `public` False leaves only what these two list. `names`, where there are
    any, are all that may be asked for whatever their addresses: `*.example.org` is each name under example.org, and
    not example.org itself.
    """

    hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    public: bool = True
    names: frozenset[str] = frozenset()

    @classmethod
    def of(cls, config: ReachConfig) -> Self:
        """What the operator's file allows. Raises UrlInvalid."""
        return cls(frozenset(map(host_name, config.hosts)), config.networks, config.public)

    @classmethod
    def to(cls, url: str) -> Self:
        """Only the host of a URL that the operator chose, be it inside. Raises UrlInvalid."""
        return cls(frozenset({(read(url).raw_host or "").rstrip(".")}), public=False)

    def names_host(self, host: str) -> bool:
        """Whether this host may be asked for at all; it is asked before the host is looked up, which tells others."""
        host = host.rstrip(".")
        above = (host[place:] for place, sign in enumerate(host) if sign == ".")
        return not self.names or host in self.names or any(f"*{each}" in self.names for each in above)

    def admits(self, host: str, address: Address) -> bool:
        """Whether a request to this host may go to this address of it."""
        if not self.names_host(host):
            return False
        plain = unwrapped(address)
        if any(plain in network for network in self.networks):
            return True
        vouched = host.rstrip(".") in self.hosts
        return (is_public(plain) and (self.public or vouched)) or (is_inside(plain) and vouched)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long all of it may take, redirects included, and how much an answer may weigh, unpacked.

    `max_bytes` 0 leaves the body unread. `content_types` None takes every type.
    """

    total_s: float = 10.0
    max_bytes: int = 1 << 20
    redirects: int = 0
    content_types: frozenset[str] | None = None
