"""Webhooks, over real sockets: signed as the standard says, and what a receiver says to one try."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from app.outbound.client import Outbound
from app.outbound.errors import UrlInvalid
from app.outbound.policy import Reach
from app.outbound.signature import Secrets, headers
from app.outbound.webhooks import LIMITS, Endpoint, Event, tell
from graphs.errors import Invalid
from tests.outbound.recipe import NEW, OLD, is_genuine
from tests.outbound.servers import LOCAL, Server, answer, serving

AT = datetime(2026, 11, 24, 17, 30, tzinfo=UTC)
EVENT = Event.of("job-1", "job.succeeded", {"jobId": "j1", "title": "Größe"}, AT)
OUTBOUND = Outbound(LOCAL, LIMITS)
OK = answer(b"", status="204 No Content")


@pytest.fixture
async def taking() -> AsyncIterator[Server]:
    async with serving(lambda _: OK) as server:
        yield server


def test_the_signature_is_the_one_of_the_standard_s_own_example() -> None:
    secrets = Secrets.read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = headers(secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_while_secrets_are_exchanged_a_receiver_may_know_either(secret: str) -> None:
    signed = headers(Secrets.read(f"{NEW}\n{OLD}"), EVENT.event_id, 1_764_000_000, EVENT.body)
    assert is_genuine(secret, signed, EVENT.body)
    assert not is_genuine(secret, signed | {"webhook-id": "job-2"}, EVENT.body)
    assert not is_genuine(secret, signed | {"webhook-timestamp": "1764000001"}, EVENT.body)
    assert not is_genuine(secret, signed, EVENT.body + b" ")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canary",
        "whsec_",
        "whsec_Y2FuYXJ5",
        "whsec_canary!canary!canary!canary!canary!",
        NEW[6:],
        f"{NEW} {OLD} {NEW}",
    ],
)
def test_what_is_no_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        Secrets.read(text)
    assert "canary" not in refused.value.message
    assert "Y2Fu" not in refused.value.message


def test_neither_secrets_nor_urls_show_in_what_is_printed() -> None:
    endpoint = Endpoint.of("https://ann:canary@good.test/canary", Secrets.read(NEW))
    assert "canary" not in repr(endpoint)
    assert "secret of 24" not in repr(endpoint)


def test_an_event_has_the_shape_that_the_standard_proposes() -> None:
    assert json.loads(EVENT.body) == {
        "type": "job.succeeded",
        "timestamp": "2026-11-24T17:30:00+00:00",
        "data": {"jobId": "j1", "title": "Größe"},
    }


async def test_what_is_told_is_signed_and_says_who_asks(taking: Server) -> None:
    endpoint = Endpoint.of(taking.url("/hook").replace("//", "//ann:pass@"), Secrets.read(NEW))
    receipt = await tell(OUTBOUND, endpoint, EVENT, now=AT)
    assert (receipt.taken, receipt.final, receipt.status) == (True, False, 204)
    assert taking.requests[0].startswith("POST /hook HTTP/1.1\r\n")
    assert taking.header("authorization") == "Basic YW5uOnBhc3M="
    assert taking.header("content-type") == "application/json"
    assert taking.header("webhook-timestamp") == str(int(AT.timestamp()))
    sent = {name: taking.header(name) or "" for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    assert is_genuine(NEW, sent, EVENT.body)


async def test_s07_a_tenant_s_endpoint_inside_is_never_asked(taking: Server) -> None:
    outbound = Outbound(Reach(), LIMITS)
    receipt = await tell(outbound, Endpoint.of(taking.url(), Secrets.read(NEW)), EVENT)
    assert (receipt.taken, receipt.status) == (False, 0)
    assert "127.0.0.1" not in receipt.said
    assert taking.requests == []
    with pytest.raises(UrlInvalid):
        Endpoint.of("http://127.1/", Secrets.read(NEW))


@pytest.mark.parametrize(
    ("status", "final"), [("503 Busy", False), ("404 Not Found", False), ("302 Found", False), ("410 Gone", True)]
)
async def test_a_try_that_is_not_taken_is_the_last_where_the_endpoint_is_gone(status: str, final: bool) -> None:
    async with serving(lambda _: answer(status=status)) as server:
        receipt = await tell(OUTBOUND, Endpoint.of(server.url("/canary"), Secrets.read(NEW)), EVENT)
    assert (receipt.taken, receipt.final, receipt.status) == (False, final, int(status[:3]))
    assert "canary" not in receipt.said


async def test_what_a_receiver_says_beside_its_status_is_not_read() -> None:
    async with serving(lambda _: b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx") as server:
        assert (await tell(OUTBOUND, Endpoint.of(server.url(), Secrets.read(NEW)), EVENT)).taken


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("30", 30.0),
        ("99999999999999999999", 3600.0),
        ("Tue, 24 Nov 2026 17:31:00 GMT", 60.0),
        ("Tue, 24 Nov 2020 17:31:00 GMT", 0.0),
        *[(junk, None) for junk in ("", "soon", "-5", "1e9", "nan", "٣", "Tue, 99 Nov")],
    ],
)
async def test_a_receiver_s_wish_to_wait_is_heard_within_reason(value: str, wait_s: float | None) -> None:
    busy = answer(b"", f"Retry-After: {value}".encode().decode("latin-1"), status="503 Busy")
    async with serving(lambda _: busy) as server:
        receipt = await tell(OUTBOUND, Endpoint.of(server.url(), Secrets.read(NEW)), EVENT, now=AT)
    assert receipt.retry_after_s == wait_s
