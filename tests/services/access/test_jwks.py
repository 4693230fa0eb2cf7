"""Keys stay at hand: few requests, one at a time, and the last good ones while the issuer is away."""

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from app.outbound.errors import OutboundRefused
from app.outbound.policy import Reach
from app.services.access.issuer import Issuer
from app.services.access.jwks import JwksCache
from graphs.errors import UpstreamError

from .conftest import FakeIssuer


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(issuer: FakeIssuer, clock: Clock) -> JwksCache:
    fetch = Issuer(issuer.url, timeout_s=0.5).jwks
    return JwksCache(fetch, fresh_s=300, last_good_s=3_600, retry_s=10, clock=clock)


async def test_a16_many_at_once_make_one_request(cache: JwksCache, issuer: FakeIssuer) -> None:
    issuer.delay_s = 0.05
    assert all(await asyncio.gather(*(cache.key("rsa") for _ in range(50))))
    assert issuer.seen["/jwks"] == 1


async def test_a16_a_flood_of_unknown_ids_makes_one_request_in_ten_seconds(
    cache: JwksCache, issuer: FakeIssuer, clock: Clock
) -> None:
    await cache.key("rsa")
    for n in range(100):
        assert await cache.key(f"made-up-{n}") is None
    assert issuer.seen["/jwks"] == 1
    clock.now += 10
    for n in range(100):
        assert await cache.key(f"made-up-{n}") is None
    assert issuer.seen["/jwks"] == 2


async def test_a16_a_rotated_key_is_found_and_the_old_one_gone(
    cache: JwksCache, issuer: FakeIssuer, clock: Clock
) -> None:
    assert await cache.key("rsa") is not None
    issuer.keys = {"ec": issuer.keys["ec"], "ed-2": issuer.keys["ed"]}
    clock.now += 10
    assert await cache.key("ed-2") is not None
    assert await cache.key("rsa") is None


async def test_fresh_keys_cost_no_request_and_old_ones_are_fetched_again(
    cache: JwksCache, issuer: FakeIssuer, clock: Clock
) -> None:
    for _ in range(10):
        await cache.key("rsa")
        clock.now += 30
    assert issuer.seen["/jwks"] == 1
    clock.now += 1
    await cache.key("rsa")
    assert issuer.seen["/jwks"] == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 503},
        {"status": 404},
        {"status": 302},
        {"delay_s": 2.0},
        {"body": b"<html>"},
        {"body": b"[]"},
        {"body": b"\xff"},
        {"body": b"[" * 100_000},
        {"body": b" " * 1_100_000},
    ],
    ids=["down", "missing", "moved", "slow", "html", "a list", "no text", "nested", "huge"],
)
async def test_a16_the_last_good_keys_hold_while_the_issuer_is_away_but_not_for_ever(
    cache: JwksCache, issuer: FakeIssuer, clock: Clock, fault: dict[str, Any]
) -> None:
    await cache.key("rsa")
    for name, value in fault.items():
        setattr(issuer, name, value)
    clock.now += 3_000
    for _ in range(20):
        assert await cache.key("rsa") is not None
    assert issuer.seen["/jwks"] == 2
    clock.now += 700
    with pytest.raises(UpstreamError):
        await cache.key("rsa")
    assert "/elsewhere" not in issuer.seen


async def test_a16_an_issuer_that_never_answered_is_asked_again_only_after_a_while(
    cache: JwksCache, issuer: FakeIssuer, clock: Clock
) -> None:
    issuer.status = 500
    for _ in range(5):
        with pytest.raises(UpstreamError):
            await cache.key("rsa")
    assert sum(issuer.seen.values()) == 1
    issuer.status = 200
    clock.now += 10
    assert await cache.key("rsa") is not None


async def test_a_set_with_strange_entries_still_gives_the_good_ones(cache: JwksCache, issuer: FakeIssuer) -> None:
    issuer.extra_jwks = [None, 7, {}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-1", "kid": "x"}, {"kty": "PQ"}, [[]]]
    assert await cache.key("ec") is not None
    assert await cache.key("x") is None


@pytest.mark.parametrize(
    "url", ["http://id.example", "ftp://x", "file:///etc/passwd", "id.example", "", "http://10.0.0.1"]
)
def test_an_issuer_on_an_open_wire_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Issuer(url)


@pytest.mark.parametrize(
    "discovery", [{"issuer": "https://evil.example"}, {"jwks_uri": "http://10.0.0.1/"}, {"jwks_uri": 7}]
)
async def test_a_discovery_document_that_points_away_is_refused(issuer: FakeIssuer, discovery: dict[str, Any]) -> None:
    issuer.discovery = discovery
    with pytest.raises(UpstreamError):
        await Issuer(issuer.url).jwks()


@pytest.mark.parametrize("uri", ["https://169.254.169.254/jwks", "https://10.0.0.1/jwks", "http://127.0.0.2:1/jwks"])
async def test_s07_keys_are_not_fetched_inside_because_a_document_says_so(issuer: FakeIssuer, uri: str) -> None:
    issuer.discovery = {"jwks_uri": uri}
    with pytest.raises(UpstreamError) as refused:
        await Issuer(issuer.url).jwks()
    assert isinstance(refused.value.__cause__, OutboundRefused)


async def test_keys_are_fetched_inside_where_the_operator_lists_the_network(issuer: FakeIssuer) -> None:
    issuer.discovery = {"jwks_uri": "http://127.0.0.2:1/jwks"}
    with pytest.raises(UpstreamError) as gone:
        await Issuer(issuer.url, reach=Reach(networks=(ip_network("127.0.0.0/8"),))).jwks()
    assert isinstance(gone.value.__cause__, UpstreamError)  # it went there, and nobody listens


async def test_an_issuer_may_name_its_endpoints_by_the_machine_s_other_name(issuer: FakeIssuer) -> None:
    issuer.discovery = {"jwks_uri": f"{issuer.url.replace('127.0.0.1', 'localhost')}/jwks"}
    assert (await Issuer(issuer.url).jwks())["keys"]
