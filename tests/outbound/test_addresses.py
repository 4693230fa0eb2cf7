"""Which addresses count as the internet, and which as inside, whatever they are wrapped in."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.outbound.addresses import is_inside, is_public, unwrapped
from app.outbound.policy import Reach

WRAPPED_LOOPBACK = [
    "::ffff:127.0.0.1",  # mapped
    "::127.0.0.1",  # compatible
    "64:ff9b::7f00:1",  # NAT64
    "2002:7f00:1::",  # 6to4
    "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo: the client's address, inverted
]
NOT_PUBLIC = [
    *WRAPPED_LOOPBACK,
    *(
        "0.0.0.0",
        "127.0.0.1",
        "127.255.255.254",
        "10.0.0.1",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
    ),
    *("169.254.169.254", "168.63.129.16", "192.0.0.192", "192.0.2.1", "198.18.0.1", "192.88.99.1", "224.0.0.1"),
    *("240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1"),
    *("ff0e::1", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "64:ff9b:1::a00:1", "64:ff9b::a9fe:a9fe"),
    *("2002:a9fe:a9fe::1", "::ffff:169.254.169.254", "::ffff:0.0.0.0"),
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::"]


@pytest.mark.parametrize("written", NOT_PUBLIC)
def test_s02_what_is_not_the_internet_is_not_reached_in_any_wrapping(written: str) -> None:
    assert not is_public(unwrapped(ip_address(written)))
    assert not Reach().admits("name.test", ip_address(written))


@pytest.mark.parametrize("written", PUBLIC)
def test_the_internet_is_reached(written: str) -> None:
    assert Reach().admits("name.test", ip_address(written))


@given(st.integers(1 << 16, 2**32 - 1))
def test_s02_a_wrapped_address_is_judged_as_the_address_itself(number: int) -> None:
    plain = ip_address(number)
    mapped, nat64 = 0xFFFF << 32 | number, 0x64_FF9B << 96 | number
    six_to_four, teredo = 0x2002 << 112 | number << 80, 0x2001_0000 << 96 | (number ^ 0xFFFF_FFFF)
    for wrapped in (number, mapped, nat64, six_to_four, teredo):
        assert unwrapped(IPv6Address(wrapped)) == plain


@pytest.mark.parametrize("written", ["169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1", "168.63.129.16", "::"])
def test_a_host_that_is_vouched_for_may_be_inside_but_not_where_clouds_give_credentials(written: str) -> None:
    vouched = Reach(hosts=frozenset({"wiki.corp"}))
    assert not is_inside(ip_address(written))
    assert not vouched.admits("wiki.corp", ip_address(written))


@pytest.mark.parametrize("written", ["10.1.2.3", "127.0.0.1", "::1", "fd12::1", "::ffff:10.1.2.3", "100.64.0.9"])
def test_only_the_host_that_is_vouched_for_may_be_inside(written: str) -> None:
    vouched = Reach(hosts=frozenset({"wiki.corp"}))
    assert vouched.admits("wiki.corp", ip_address(written))
    assert vouched.admits("wiki.corp.", ip_address(written))
    assert not vouched.admits("evil.test", ip_address(written))


def test_a_listed_network_may_be_reached_under_any_name_and_its_neighbour_under_none() -> None:
    listed = Reach(networks=(ip_network("10.1.0.0/16"),))
    assert listed.admits("any.test", ip_address("10.1.9.9"))
    assert listed.admits("any.test", ip_address("64:ff9b::a01:909"))
    assert not listed.admits("any.test", ip_address("10.2.0.1"))


def test_without_the_internet_only_what_is_listed_is_reached() -> None:
    closed = Reach(frozenset({"docs.test"}), (ip_network("10.1.0.0/16"),), public=False)
    assert closed.admits("docs.test", ip_address("1.1.1.1"))
    assert closed.admits("other.test", ip_address("10.1.0.1"))
    assert not closed.admits("other.test", ip_address("1.1.1.1"))


@pytest.mark.parametrize(
    ("host", "named"),
    [
        *[("example.org", True), ("example.org.", True), ("www.example.org", False), ("notexample.org", False)],
        *[("a.partner.test", True), ("a.b.partner.test", True), ("partner.test", False), ("xpartner.test", False)],
        *[("example.org.evil.test", False), ("1.1.1.1", False), ("", False)],
    ],
)
def test_s06_names_are_all_that_may_be_asked_for(host: str, named: bool) -> None:
    reach = Reach(names=frozenset({"example.org", "*.partner.test"}))
    assert reach.names_host(host) is named
    assert reach.admits(host, ip_address("1.1.1.1")) is named
    assert not reach.admits(host, ip_address("10.0.0.1"))
    assert Reach().names_host(host)
