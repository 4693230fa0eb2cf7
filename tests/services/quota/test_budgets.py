"""Budgets under concurrency: never overspent, never short of what is there."""

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.services.quota.book import Scope
from app.services.quota.ledger import Budget, Ledger
from graphs.errors import QuotaExhausted
from tests.services.quota.kit import ANN, Clock, bill, books, charge, spend, tenants

TEN_OF_100 = """
import asyncio, os, sys
from app.services.quota.committer import Committer
from app.services.quota.ledger import Ledger
from graphs.errors import QuotaExhausted
from tests.services.quota.kit import bill, charge, tenants

async def call(ledger, streamed):
    try:
        hold = await ledger.reserve(charge(100, streamed=streamed), tenants(1_050))
    except QuotaExhausted:
        return 0
    await hold.recorded()
    await asyncio.sleep(0.02)
    await hold.settle(bill(100))
    return 1

async def main():
    ledger = Ledger(Committer(sys.argv[1]))
    through = await asyncio.gather(*(call(ledger, number % 2 == 0) for number in range(25)))
    await ledger.close()
    return sum(through)

children = []
for _ in range(4):  # forked, so that the libraries are imported once
    if not (child := os.fork()):
        os._exit(asyncio.run(main()))
    children.append(child)
print(*(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


async def attempt(ledger: Ledger, limits, wanted: int = 100, **given) -> bool:
    try:
        hold = await ledger.reserve(charge(wanted, **given), limits)
    except QuotaExhausted:
        return False
    await hold.recorded()
    await asyncio.sleep(0)
    await hold.settle(bill(wanted))
    return True


@pytest.mark.parametrize("streamed", [False, True])
async def test_r01_a_hundred_calls_against_a_budget_for_ten_let_ten_through(store_url: str, streamed: bool):
    async with books(store_url) as book:
        ledger = book.open(wait_s=5.0)
        through = await asyncio.gather(*(attempt(ledger, tenants(1_050), streamed=streamed) for _ in range(100)))
        assert sum(through) == 10
        await ledger.close()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (1_000, 0)
        assert book.one("SELECT COUNT(*), SUM(cost_micros) FROM ledger WHERE state = 'settled'") == (10, 1_000)


async def test_r01_r09_four_processes_let_ten_of_a_hundred_calls_through(store_url: str):
    async with books(store_url) as book:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", TEN_OF_100, book.url, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        through = [int(count) for count in said.split()]
        assert (len(through), sum(through)) == (4, 10)
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (1_000, 0)
        assert book.one("SELECT COUNT(*), SUM(cost_micros) FROM ledger WHERE state = 'settled'") == (10, 1_000)


async def test_r01_each_of_the_budgets_that_bound_a_call_holds(store_url: str):
    """A user's budget for 3 inside a tenant's for 5, in two processes, reserved in either order."""
    scopes = (Budget(Scope("user", "acme", "ann"), 300), Budget(Scope("tenant", "acme"), 500))
    async with books(store_url) as book:
        first, second = book.open(wait_s=1.0), book.open(wait_s=1.0)
        through = await asyncio.gather(
            *(
                attempt(ledger, limits)
                for ledger in (first, second)
                for limits in (scopes, scopes[::-1])
                for _ in range(4)
            )
        )
        assert sum(through) == 3
        bob = replace(ANN, user_id="bob")
        assert [await attempt(second, scopes[1:], payer=bob) for _ in range(3)] == [True, True, False]
        await asyncio.gather(first.close(), second.close())
        assert dict(book.rows("SELECT scope, spent_micros FROM budgets WHERE held_micros = 0")) == {
            "user:acme/ann": 300,
            "tenant:acme": 500,
        }


async def test_r02_the_first_calls_of_an_unknown_user_are_bounded_together(store_url: str):
    async with books(store_url) as book:
        ledgers = [book.open(wait_s=1.0) for _ in range(4)]
        limits = (Budget(Scope("user", "acme", "new"), 250),)
        new = replace(ANN, user_id="new")
        through = await asyncio.gather(*(attempt(ledgers[number % 4], limits, payer=new) for number in range(8)))
        assert sum(through) == 2


async def test_r02_a_budget_that_is_set_later_counts_what_was_spent_before(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 400)
        await spend(ledger, 300, payer=replace(ANN, user_id="bob"))
        await spend(ledger, 50, payer=replace(ANN, tenant_id="other"))
        assert await ledger.standing(Budget(Scope("user", "acme", "ann"), 500)) == (400, 500)
        assert await ledger.standing(Budget(Scope("key", "acme", "k1"), 999)) == (700, 999)
        assert await ledger.standing(Budget(Scope("feature", "acme", "search"), 999)) == (700, 999)
        assert await ledger.standing(Budget(Scope("tenant", "acme"), 999)) == (700, 999)
        assert not await attempt(ledger, (Budget(Scope("user", "acme", "ann"), 450),))


async def test_r03_spend_across_the_months_end_is_neither_lost_nor_doubled(store_url: str):
    """Four processes write while the month turns; a call is paid by the month in which it was admitted."""
    async with books(store_url, clock=Clock(datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))) as book:
        ledgers = [book.open(wait_s=1.0) for _ in range(4)]

        async def write(ledger: Ledger, count: int) -> None:
            for _ in range(count):
                assert await attempt(ledger, tenants(10_000), wanted=10)

        across = [await ledger.reserve(charge(10), tenants(10_000)) for ledger in ledgers]
        writing = asyncio.gather(*(write(ledger, 20) for ledger in ledgers))
        await asyncio.sleep(0)
        book.clock.pass_by(2)
        await writing
        await asyncio.gather(*(hold.settle(bill(7)) for hold in across))
        await asyncio.gather(*(ledger.close() for ledger in ledgers))
        spent = dict(book.rows("SELECT period, spent_micros FROM budgets"))
        booked = dict(book.rows("SELECT period, SUM(cost_micros) FROM ledger GROUP BY period"))
        assert spent == booked
        assert set(spent) == {"2026-11", "2026-12"}
        assert sum(spent.values()) == 4 * 20 * 10 + 4 * 7
        assert book.one("SELECT SUM(held_micros) FROM budgets") == 0
        assert book.one("SELECT COUNT(*) FROM ledger WHERE day = '2026-11-30' AND cost_micros = 7") == 4


async def test_a_new_month_has_its_whole_budget(store_url: str):
    async with books(store_url, clock=Clock(datetime(2026, 12, 31, 23, 59, 30, tzinfo=UTC))) as book:
        ledger = book.open()
        await spend(ledger, 100, tenants(100))
        with pytest.raises(QuotaExhausted) as refused:
            await ledger.reserve(charge(1), tenants(100))
        assert refused.value.retry_after_s == 30
        book.clock.pass_by(30)
        await spend(ledger, 100, tenants(100))


async def test_a_call_that_finds_no_room_waits_for_those_in_flight(store_url: str):
    async with books(store_url) as book:
        first, second = book.open(wait_s=5.0), book.open(wait_s=5.0)
        hold = await first.reserve(charge(90), tenants(100))
        waiting = asyncio.create_task(second.reserve(charge(50), tenants(100)))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await hold.settle(bill(10))
        assert (await asyncio.wait_for(waiting, 5)).granted_micros == 50


async def test_waiting_calls_are_refused_together_and_not_one_after_the_other(store_url: str):
    async with books(store_url) as book:
        ledger = book.open(wait_s=0.2)
        ledger._monotonic = ledger._life._monotonic = asyncio.get_running_loop().time
        await ledger.reserve(charge(100), tenants(100))
        calls = [asyncio.create_task(ledger.reserve(charge(50), tenants(100))) for _ in range(50)]
        done, _ = await asyncio.wait(calls, timeout=5)
        assert len(done) == 50
        assert all(isinstance(call.exception(), QuotaExhausted) for call in done)
        assert {call.exception().retry_after_s for call in done} == {1.0}  # type: ignore[union-attr]


async def test_what_is_left_of_a_budget_is_granted_down_to_the_least(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 70, tenants(100))
        assert (await ledger.reserve(charge(80, 20), tenants(100))).granted_micros == 30
        with pytest.raises(QuotaExhausted):
            await ledger.reserve(charge(80, 20), tenants(100))


async def test_a_call_dearer_than_its_worst_case_is_booked_in_full(store_url: str):
    async with books(store_url) as book:
        ledger, other = book.open(), book.open()
        holds = [await ledger.reserve(charge(20), tenants(100)) for _ in range(2)]
        await holds[0].settle(bill(65))
        await ledger.keep_once()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (65, 20)
        assert not await attempt(other, tenants(100), wanted=20)
        await holds[1].settle(bill(15))
        await ledger.keep_once()
        assert await attempt(other, tenants(100), wanted=20)


async def test_most_calls_of_a_roomy_budget_ask_the_database_for_no_credit(tmp_path):
    async with books(f"sqlite+aiosqlite:///{tmp_path / 'l.db'}") as book:
        ledger, asked = book.open(), []
        submit = ledger._committer.submit
        ledger._committer.submit = lambda kind, payload: (asked.append(kind.name), submit(kind, payload))[1]  # type: ignore[method-assign]
        for _ in range(100):
            await spend(ledger, 10, tenants(1_000_000))
        assert asked.count("ask") == 1


async def test_credit_of_an_idle_process_goes_back(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 10, tenants(1_000_000))
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (0, 7_812)
        book.clock.pass_by(1)
        await ledger.keep_once()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (10, 7_802)
        book.clock.pass_by(5)
        await ledger.keep_once()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (10, 0)


async def test_purses_that_nobody_uses_are_forgotten_and_nothing_with_them(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 10, tenants(1_000))
        for _ in range(2):
            book.clock.pass_by(700)
            await ledger.keep_once()
        assert not ledger._purses
        await spend(ledger, 10, tenants(1_000))
        assert await ledger.standing(*tenants(1_000)) == (20, 1_000)


async def test_a_reservation_that_is_cancelled_gives_everything_back(store_url: str):
    async with books(store_url) as book:
        ledger = book.open(wait_s=30.0)
        limits = (*tenants(1_000), Budget(Scope("user", "acme", "ann"), 100))
        hold = await ledger.reserve(charge(100), limits)
        waiting = asyncio.create_task(ledger.reserve(charge(100), limits))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await hold.settle(bill(100))
        await ledger.close()
        assert set(book.rows("SELECT spent_micros, held_micros FROM budgets")) == {(100, 0)}


async def test_the_limit_is_told_to_whoever_listens_after_each_settlement(tmp_path):
    async with books(f"sqlite+aiosqlite:///{tmp_path / 'l.db'}") as book:
        heard = []
        ledger = book.open(on_spent=lambda account, spent, limit: heard.append((str(account.scope), spent, limit)))
        await spend(ledger, 10, tenants(100))
        await spend(ledger, 15, tenants(100))
        assert heard == [("tenant:acme", 10, 100), ("tenant:acme", 25, 100)]
