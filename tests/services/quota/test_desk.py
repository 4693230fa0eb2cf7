"""The desk: who may come in, with which models, at whose cost, and what the caller is told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from app.config.load import parse
from app.records import Bill, Charge, Payer
from app.services.quota.allowances import Allowances
from app.services.quota.committer import Committer
from app.services.quota.desk import QuotaDesk
from app.services.quota.ledger import Ledger
from app.services.quota.places import Places
from app.services.quota.refusals import RateLimited, SwitchedOff
from app.services.quota.window import LocalWindows
from app.services.store.store import Store
from graphs.errors import QuotaExhausted
from graphs.types import Usage

ANN = Payer("acme", "ann", "k1", "search")
CHARGE = Charge(ANN, "big", "lab", "default", "chat", 1, False, "config", 1_000, 1_000, 100, 200)
FILE = """
providers: {lab: {kind: scripted}}
models:
  big: {provider: lab, model: x, input_usd_per_mtok: 2, output_usd_per_mtok: 8}
  small: {provider: lab, model: y, input_usd_per_mtok: 1, output_usd_per_mtok: 1}
routes: {default: {candidates: [big, small]}, cheap: {candidates: [small]}}
tenants:
"""


@dataclass(frozen=True)
class Thrown:
    kind: str
    name: str
    reason: str = "it runs away"


@dataclass
class Switchboard:
    models_off: frozenset[str] = frozenset()
    tenants_off: frozenset[str] = frozenset()

    def off(self, payer: Payer) -> Thrown | None:
        return Thrown("tenant", payer.tenant_id) if payer.tenant_id in self.tenants_off else None

    def model_off(self, model: str) -> Thrown | None:
        return Thrown("model", model) if model in self.models_off else None


Opened = Callable[..., Awaitable[QuotaDesk]]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    ledgers: list[Ledger] = []
    url = f"sqlite+aiosqlite:///{tmp_path / 'p.db'}"
    await (await Store.open(url)).close()

    async def open_desk(tenants: str, switches: Switchboard | None = None) -> QuotaDesk:
        config = parse(FILE + tenants, {})
        ledgers.append(Ledger(Committer(url), wait_s=0.1))
        desk = QuotaDesk(
            Allowances(config, config.model_names),
            ledgers[-1],
            LocalWindows(),
            Places(at_once=100, queue_length=10, queue_wait_s=0.1),
            switches=switches,
        )
        desk.all_models = frozenset({"big", "small", "extractive"})
        return desk

    yield open_desk
    for ledger in ledgers:
        await ledger.close()


def bill(cost_micros: int, tokens: int = 0) -> Bill:
    return Bill("ok", Usage(tokens, 0), cost_micros, 1.0)


async def test_a_tenant_that_is_not_listed_is_unlimited(opened: Opened) -> None:
    desk = await opened("  acme: {requests_per_minute: 1}")
    other = replace(ANN, tenant_id="other")
    tickets = [await desk.admit(other) for _ in range(50)]
    assert desk.allowed(other) is None
    assert dict(tickets[0].headers) == {}


async def test_requests_beyond_the_rate_get_the_standard_headers_and_a_time_to_come_back(opened: Opened) -> None:
    desk = await opened("  acme: {requests_per_minute: 2, users: {ann: {requests_per_minute: 5}}}")
    first = await desk.admit(ANN)
    assert first.headers["ratelimit-policy"] == '"tenant-requests";q=2;w=60, "user-requests";q=5;w=60'
    assert first.headers["ratelimit"].startswith('"tenant-requests";r=1;t=')
    assert (first.headers["ratelimit-limit"], first.headers["ratelimit-remaining"]) == ("2", "1")
    await desk.admit(ANN)
    with pytest.raises(RateLimited, match="requests of the tenant") as refused:
        await desk.admit(ANN)
    assert refused.value.headers["ratelimit-remaining"] == "0"
    assert 50 < (refused.value.retry_after_s or 0) < 61


async def test_every_limit_is_told_with_its_own_rest_and_the_older_headers_tell_the_tightest(opened: Opened) -> None:
    desk = await opened(
        "  acme: {requests_per_minute: 600, tokens_per_minute: 5000, users: {ann: {requests_per_minute: 5}}, "
        "keys: {k1: {requests_per_minute: 4, tokens_per_minute: 900}}}"
    )
    await desk.admit(replace(ANN, user_id="bob", key_id="k2"))
    await asyncio.sleep(1.1)
    told = (await desk.admit(ANN)).headers
    assert told["ratelimit-policy"] == (
        '"tenant-requests";q=600;w=60, "user-requests";q=5;w=60, "key-requests";q=4;w=60, '
        '"tenant-tokens";q=5000;w=60, "key-tokens";q=900;w=60'
    )
    states = [state.split(";t=") for state in told["ratelimit"].split(", ")]
    assert [state[0] for state in states] == [
        *('"tenant-requests";r=598', '"user-requests";r=4', '"key-requests";r=3'),
        *('"tenant-tokens";r=5000', '"key-tokens";r=900'),
    ]
    tenant_s, user_s, key_s = (int(state[1]) for state in states[:3])
    assert tenant_s < user_s == key_s  # the tenant's first use is older
    assert [told[f"ratelimit-{name}"] for name in ("limit", "remaining", "reset")] == ["4", "3", str(key_s)]


async def test_a_refusal_for_tokens_tells_the_limit_on_tokens_and_all_the_others(opened: Opened) -> None:
    desk = await opened("  acme: {requests_per_minute: 9, tokens_per_minute: 1000}")
    await desk.admit(ANN)
    await desk.reserve(ANN, CHARGE, 900)
    with pytest.raises(RateLimited) as refused:
        await desk.reserve(ANN, CHARGE, 200)
    told = refused.value.headers
    assert told["ratelimit"].startswith('"tenant-requests";r=8;t=')
    assert '"tenant-tokens";r=100;t=' in told["ratelimit"]
    assert (told["ratelimit-limit"], told["ratelimit-remaining"]) == ("1000", "100")
    assert (await desk.admit(ANN)).headers["ratelimit"].split(", ")[1].startswith('"tenant-tokens";r=100;t=')


async def test_r02_the_star_gives_each_unlisted_user_an_allowance_of_its_own(opened: Opened) -> None:
    desk = await opened('  acme: {users: {"*": {requests_per_minute: 8}}}')
    for user in ("bob", "cyd"):
        payer = replace(ANN, user_id=user)
        gotten = await asyncio.gather(*(desk.admit(payer) for _ in range(12)), return_exceptions=True)
        assert sum(isinstance(item, RateLimited) for item in gotten) == 4


async def test_tokens_are_reserved_by_the_worst_case_and_put_right_by_the_bill(opened: Opened) -> None:
    desk = await opened("  acme: {tokens_per_minute: 1000}")
    hold = await desk.reserve(ANN, CHARGE, 900)
    with pytest.raises(RateLimited, match="900 are needed of 1000"):
        await desk.reserve(ANN, CHARGE, 900)
    await hold.settle(bill(10, tokens=50))
    await hold.settle(bill(10, tokens=50))  # a second time changes nothing
    await desk.reserve(ANN, CHARGE, 950)
    with pytest.raises(RateLimited):
        await desk.reserve(ANN, CHARGE, 1)


async def test_a_call_that_no_budget_covers_gives_its_tokens_back(opened: Opened) -> None:
    desk = await opened("  acme: {tokens_per_minute: 1000, budget_usd_month: 0.0005}")
    with pytest.raises(QuotaExhausted):
        await desk.reserve(ANN, CHARGE, 1000)
    await desk.reserve(ANN, replace(CHARGE, wanted_micros=0, least_micros=0), 1000)


async def test_a07_the_lists_of_tenant_user_and_key_all_have_to_allow_a_model(opened: Opened) -> None:
    desk = await opened("  acme: {models: [default], users: {ann: {models: [small, extractive]}}}")
    assert desk.allowed(ANN) == {"small"}
    assert desk.allowed(replace(ANN, user_id="bob")) == {"big", "small"}


async def test_what_is_switched_off_stops_at_once_with_its_reason(opened: Opened) -> None:
    switches = Switchboard(frozenset({"big"}))
    desk = await opened("  acme: {models: [default]}", switches)
    assert desk.allowed(ANN) == {"small"}
    assert desk.allowed(replace(ANN, tenant_id="other")) == {"small", "extractive"}
    with pytest.raises(SwitchedOff, match="big is switched off: it runs away"):
        await desk.reserve(ANN, CHARGE, 1)
    switches.tenants_off = frozenset({"acme"})
    with pytest.raises(SwitchedOff, match="this tenant is switched off: it runs away"):
        await desk.admit(ANN)
    with pytest.raises(SwitchedOff):
        await desk.reserve(ANN, replace(CHARGE, model="small"), 1)


async def test_a_refusal_names_the_switch_only_where_all_that_the_caller_might_use_is_off(opened: Opened) -> None:
    desk = await opened("  acme: {models: [cheap]}", Switchboard(frozenset({"small"})))
    off = desk.barred(ANN, ["big", "small"])
    assert off is not None
    assert (off.code, off.message, off.field) == ("switched_off", "small is switched off: it runs away", "model")
    assert desk.barred(replace(ANN, tenant_id="other"), ["big", "small"]) is None
    assert desk.barred(ANN, ["big"]) is None


async def test_the_ladder_follows_what_is_spent(opened: Opened) -> None:
    desk = await opened(
        "  acme: {budget_usd_month: 0.01, degrade: [{at: 0.5, route: cheap}, {at: 1.0, answer: extractive}]}"
    )
    assert await desk.rung(ANN) is None
    await (await desk.reserve(ANN, replace(CHARGE, wanted_micros=6_000, least_micros=6_000), 1)).settle(bill(6_000))
    step = await desk.rung(ANN)
    assert step is not None
    assert step.route == "cheap"
    last = desk.last_rung(ANN)
    assert last is not None
    assert last.answer == "extractive"


async def test_the_highest_step_of_several_ladders_counts(opened: Opened) -> None:
    desk = await opened(
        "  acme: {budget_usd_month: 1, degrade: [{at: 0.0, route: cheap}],"
        " users: {ann: {budget_usd_month: 0, degrade: [{at: 1.0, answer: refuse}]}}}"
    )
    step = await desk.rung(ANN)
    assert step is not None
    assert step.answer == "refuse"
    other = await desk.rung(replace(ANN, user_id="bob"))
    assert other is not None
    assert other.route == "cheap"


async def test_what_costs_nothing_is_served_from_an_empty_budget(opened: Opened) -> None:
    desk = await opened("  acme: {budget_usd_month: 0}")
    with pytest.raises(QuotaExhausted):
        await desk.reserve(ANN, CHARGE, 1)
    await (await desk.reserve(ANN, replace(CHARGE, wanted_micros=0, least_micros=0), 1)).settle(bill(0))


async def test_names_from_outside_cannot_share_a_count(opened: Opened) -> None:
    desk = await opened('  "*": {users: {"*": {requests_per_minute: 1}}}')
    for tenant, user in (("a", "b:user:c"), ("a:user:b", "c"), ("a}", "{b"), ("a", "}b")):
        await desk.admit(Payer(tenant, user))
