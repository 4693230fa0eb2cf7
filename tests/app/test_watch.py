"""The watch over the real parts: what a ledger books and a breaker sees reaches the operator's webhook."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.config.schema import AlertConfig
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.scripted import SCRIPTED, ScriptedProvider
from app.services.quota.committer import Committer
from app.services.quota.ledger import Ledger
from app.services.store.store import Store
from app.telemetry.late import LATE_S
from app.watch import Watch, open_watch
from graphs.errors import Invalid, UpstreamError, UpstreamUnauthorized
from graphs.types import Message, ModelRequest
from tests.outbound.recipe import NEW, OLD, is_genuine
from tests.services.alerts.receiver import Receiver, receiver
from tests.services.quota.kit import bill, charge, tenants

ASK = ModelRequest(messages=(Message("user", "Say hello"),))


@asynccontextmanager
async def watching(url: str, config: AlertConfig) -> AsyncIterator[tuple[Watch, Store]]:
    store = await Store.open(url)
    try:
        async with open_watch(store.database, config) as watch:
            yield watch, store
    finally:
        await store.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path / 'watch.db'}"


async def arrived(got: Receiver, count: int) -> list[tuple[object, object]]:
    async with asyncio.timeout(60):
        while len(got.bodies) < count:
            await asyncio.sleep(0.01)
    return [(body["kind"], body["subject"]) for body in got.bodies]


async def test_a_budget_that_is_settled_beyond_a_share_rings_the_webhook(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver() as got:
        monkeypatch.setenv("HOOK", got.url)
        config = AlertConfig(webhook_url_env="HOOK", budget_shares=(0.8,))
        async with watching(url, config) as (watch, _):
            ledger = Ledger(Committer(url), on_spent=watch.alerts.note_spent)
            for cost in (700, 150, 10):
                hold = await ledger.reserve(charge(cost), tenants(1_000))
                await hold.settle(bill(cost))
            assert await arrived(got, 1) == [("budget", "tenant:acme")]
            await ledger.close()
    assert "85% of the budget" in got.bodies[0]["text"]
    assert len(got.bodies) == 1


async def test_alerts_are_signed_with_the_secrets_that_the_file_names(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", f"{NEW} {OLD}")
    async with receiver() as got:
        monkeypatch.setenv("HOOK", got.url)
        async with watching(url, AlertConfig(webhook_url_env="HOOK", webhook_secret_env="SECRET")) as (watch, _):
            watch.alerts.note_breaker("big", "open")
            await arrived(got, 1)
    assert is_genuine(NEW, got.headers[0], got.raw[0])
    assert is_genuine(OLD, got.headers[0], got.raw[0])


async def test_a_secret_that_is_none_stops_the_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "https://hooks.test/x")
    monkeypatch.setenv("SECRET", "whsec_canary")
    with pytest.raises(Invalid) as refused:
        async with watching(url, AlertConfig(webhook_url_env="HOOK", webhook_secret_env="SECRET")):
            pass
    assert "canary" not in str(refused.value)


async def test_u05_a_refused_credential_and_an_open_breaker_ring_the_webhook(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(_: object) -> Exception:
        return UpstreamUnauthorized("the key is not accepted")

    def fails(_: object) -> Exception:
        return UpstreamError("it broke")

    gateway = ModelGateway.of({"locked": ScriptedProvider(refuses), "broken": ScriptedProvider(fails)}, "broken")
    async with receiver() as got:
        monkeypatch.setenv("HOOK", got.url)
        async with watching(url, AlertConfig(webhook_url_env="HOOK")) as (watch, _):
            watch.follow(gateway)
            for model, calls in (("locked", 1), ("broken", 12)):
                for _ in range(calls):
                    with pytest.raises(UpstreamError):
                        await gateway.complete(ModelRequest(messages=ASK.messages, model=model))
            assert sorted(await arrived(got, 2)) == [("breaker", "broken"), ("credential", "locked")]
            assert watch.recent.of("broken").failures >= 10
            assert watch.metrics.registry.get_sample_value(
                "pilothouse_model_errors_total", {"model": "locked", "code": "upstream_unauthorized"}
            )
    await gateway.close()


async def test_what_is_noticed_in_the_last_moment_is_written_down(url: str) -> None:
    async with watching(url, AlertConfig()) as (watch, _):
        watch.alerts.note_breaker("big", "open")
    async with watching(url, AlertConfig()) as (watch, _):
        assert await watch.alerts.unread() == 1


async def test_a_webhook_that_is_no_url_stops_the_start(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", "canary-not-a-url")
    with pytest.raises(Invalid) as refused:
        async with watching(url, AlertConfig(webhook_url_env="HOOK")):
            pass
    assert "canary" not in str(refused.value)


async def test_a_model_has_its_series_before_its_first_call(url: str) -> None:
    gateway = ModelGateway.of({SCRIPTED.name: ScriptedProvider(["hi"])}, SCRIPTED.name)
    async with watching(url, AlertConfig()) as (watch, _):
        watch.follow(gateway)
        labels = {"model": SCRIPTED.name, "outcome": "ok"}
        assert watch.metrics.registry.get_sample_value("pilothouse_model_calls_total", labels) == 0
        await gateway.complete(ASK)
        assert watch.metrics.registry.get_sample_value("pilothouse_model_calls_total", labels) == 1
    await gateway.close()


async def test_k08_a_loop_that_stood_still_is_an_alert(url: str) -> None:
    async with watching(url, AlertConfig()) as (watch, _):
        watch.begin()
        await asyncio.sleep(0.15)
        time.sleep(LATE_S + 0.2)  # noqa: ASYNC251 - it is what must not be done
        async with asyncio.timeout(30):
            while not await watch.alerts.unread():
                await asyncio.sleep(0.01)
        ((alert,), _) = await watch.alerts.page()
        assert (alert.kind, watch.loop.worst_ms >= LATE_S * 1e3) == ("loop", True)
