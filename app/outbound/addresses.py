"""Which addresses are public. Python's `is_global` alone lets the tunnels through: 64:ff9b::7f00:1 is 127.0.0.1."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NAT64: Final = IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = IPv6Network("::/96")  # the old way to write an IPv4 address; holds :: and ::1 too
_GLOBAL_UNICAST: Final = IPv6Network("2000::/3")
# Global by Python, and yet not the internet: clouds' own servers on every machine's link (Azure's, Oracle's in a /24 of
# which Python knows a part), relays of 6to4, addresses for documentation.
_NOT_PUBLIC: Final = tuple(map(ip_network, ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "3fff::/20")))
_INSIDE: Final = tuple(
    map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "fc00::/7"))
)
_LOOPBACK: Final = IPv6Address("::1")


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address leads to by mapping, NAT64, 6to4 or Teredo; else the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64 or (address in _COMPATIBLE and address != _LOOPBACK):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """Whether an unwrapped address is of the internet."""
    if not address.is_global or address.is_multicast or any(address in network for network in _NOT_PUBLIC):
        return False
    return isinstance(address, IPv4Address) or address in _GLOBAL_UNICAST


def is_inside(address: Address) -> bool:
    """Whether an unwrapped address is of a private network or this machine. Link-local ones are neither: clouds give
    credentials away there."""
    return address == _LOOPBACK or any(address in network for network in _INSIDE)
