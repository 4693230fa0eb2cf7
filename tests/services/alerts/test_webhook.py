"""The webhook, over a real socket: one signed POST, no redirects, no proxy, its URL told to nobody."""

import asyncio
import logging
import socket
from datetime import UTC, datetime

import pytest
from aiohttp import web

from app.outbound.signature import Secrets
from app.outbound.webhooks import Endpoint
from app.services.alerts.shelf import Alert
from app.services.alerts.webhook import Webhook
from graphs.errors import Invalid
from tests.outbound.recipe import NEW, OLD, is_genuine
from tests.services.alerts.receiver import receiver

ALERT = Alert(
    alert_id="0" * 32,
    kind="budget",
    subject="tenant:acme",
    detail="82% of the budget of 2026-11 is spent",
    share=0.8,
    created_at=datetime(2026, 11, 24, 17, tzinfo=UTC),
    acknowledged_at=None,
    acknowledged_by="",
    delivery="waiting",
    tries=0,
)


async def test_an_alert_arrives_as_json_that_a_chat_service_can_show(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with receiver() as got:
        assert (await Webhook(Endpoint.of(got.url, Secrets())).send(ALERT)).taken
    assert got.bodies[0]["text"] == "Pilothouse: tenant:acme: 82% of the budget of 2026-11 is spent"
    assert got.bodies[0] | {"text": ""} == {
        "id": "0" * 32,
        "kind": "budget",
        "subject": "tenant:acme",
        "detail": "82% of the budget of 2026-11 is spent",
        "share": 0.8,
        "createdAt": "2026-11-24T17:00:00+00:00",
        "text": "",
    }
    assert got.headers[0]["Idempotency-Key"] == got.headers[0]["webhook-id"] == "0" * 32
    assert "webhook-signature" not in got.headers[0]  # chat services know of none


async def test_with_a_secret_an_alert_is_signed_over_the_bytes_that_arrive() -> None:
    async with receiver() as got:
        assert (await Webhook(Endpoint.of(got.url, Secrets.read(f"{NEW} {OLD}"))).send(ALERT)).taken
    for secret in (NEW, OLD):
        assert is_genuine(secret, got.headers[0], got.raw[0])
        assert not is_genuine(secret, got.headers[0], got.raw[0].replace(b"82%", b"12%"))


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 429, 500])
async def test_every_answer_but_2xx_is_a_refusal_and_no_redirect_is_followed(status: int) -> None:
    async with receiver() as got:
        got.answer = lambda: web.Response(status=status, headers={"Location": "/elsewhere"})
        assert not (await Webhook(Endpoint.of(got.url, Secrets())).send(ALERT)).taken
    assert got.paths == ["/hook"]


async def test_a_receiver_that_is_slow_or_gone_costs_its_deadline_only(caplog: pytest.LogCaptureFixture) -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections, never answers
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/hook?token=canary-hook-token"
    webhook = Webhook(Endpoint.of(url, Secrets()), timeout_s=0.1)
    with caplog.at_level(logging.DEBUG):
        async with asyncio.timeout(30):
            assert not (await webhook.send(ALERT)).taken
            silent.close()
            assert not (await webhook.send(ALERT)).taken
    assert "the webhook did not take an alert" in caplog.text
    assert "canary-hook-token" not in caplog.text
    assert not any("canary-hook-token" in str(vars(line)) for line in caplog.records)


@pytest.mark.parametrize(
    "url", ["", "canary", "ftp://canary/x", "http://", "file:///canary", "http://[canary", "//canary"]
)
def test_what_is_no_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(Invalid) as refused:
        Endpoint.of(url, Secrets())
    assert "canary" not in str(refused.value)
