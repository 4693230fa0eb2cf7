"""Processes that die, stand still, or lose their database: what they held comes back, what they spent is booked."""

import asyncio
import signal
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest

from app.services.quota import committer as committing
from app.services.quota.book import Scope
from app.services.quota.committer import LedgerUnavailable
from app.services.quota.ledger import Budget, Ledger
from app.services.quota.life import BEAT_S, DEAD_AFTER_S
from app.services.quota.link import Again, Away, Link
from graphs.errors import QuotaExhausted
from graphs.types import Usage
from tests.services.quota.kit import Books, bill, books, charge, spend, tenants

LIMIT = tenants(1_000_000)

SPENDING = """
import asyncio, random, sys
from app.services.quota.committer import Committer
from app.services.quota.ledger import Ledger
from tests.services.quota.kit import bill, charge, tenants

async def call(ledger):
    while True:
        hold = await ledger.reserve(charge(50), tenants(1_000_000))
        await hold.recorded()
        await asyncio.sleep(random.random() * 0.005)
        await hold.settle(bill(random.randrange(51)))
        print(hold.call_id, flush=True)

async def main():
    ledger = Ledger(Committer(sys.argv[1]))
    asyncio.create_task(ledger.keep())
    await asyncio.gather(*(call(ledger) for _ in range(8)))

asyncio.run(main())
"""


async def pass_by(book: Books, seconds: float, *living: Ledger) -> None:
    """Let time go by while `living` give their signs."""
    for _ in range(round(seconds)):
        book.clock.pass_by(1)
        for ledger in living:
            await ledger.keep_once()


def invariants(book: Books) -> None:
    """What is true of the tables after every transaction, and at the end of all."""
    for scope, period, held in book.rows("SELECT scope, period, held_micros FROM budgets"):
        holds = book.one(
            "SELECT COALESCE(SUM(held_micros), 0) FROM budget_holds WHERE scope = :s AND period = :p", s=scope, p=period
        )
        assert held == holds
    assert book.one(
        "SELECT (SELECT COALESCE(SUM(spent_micros), 0) FROM budgets) + "
        "(SELECT COALESCE(SUM(unbooked_micros), 0) FROM budget_holds)"
    ) == book.one("SELECT COALESCE(SUM(cost_micros), 0) FROM ledger WHERE state <> 'open'")


async def test_r04_a_process_killed_at_any_moment_leaves_nothing_behind(store_url: str):
    """Three are killed at different moments. Their rows end, their holds are let go, every settled call is there."""
    async with books(store_url) as book:
        heir, told = book.open(), []
        for delay_s in (0.02, 0.09, 0.23):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", SPENDING, book.url, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            told.append((await process.stdout.readline()).decode().strip())
            await asyncio.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
            told += (await process.stdout.read()).decode().rpartition("\n")[0].split()
            await process.wait()
            invariants(book)
        assert book.one("SELECT COUNT(*) FROM ledger WHERE state = 'open'") > 0
        assert book.one("SELECT SUM(held_micros) FROM budgets") > 0
        await pass_by(book, DEAD_AFTER_S + 2, heir)
        assert book.one("SELECT COUNT(*) FROM ledger WHERE state = 'open'") == 0
        settled = {row[0] for row in book.rows("SELECT call_id FROM ledger WHERE state = 'settled'")}
        assert set(told) <= settled
        assert book.one("SELECT COUNT(*) FROM ledger_processes") == 1
        assert book.one("SELECT COUNT(*) FROM budget_holds") == 0
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (
            book.one("SELECT SUM(cost_micros) FROM ledger"),
            0,
        )


async def die(ledger: Ledger) -> None:
    """As kill -9 has it: nothing is given back."""
    await ledger._committer.close()


async def test_r04_what_a_dead_process_held_is_free_again_and_its_call_is_booked_with_its_prompt(store_url: str):
    async with books(store_url) as book:
        dying, heir = book.open(), book.open()
        hold = await dying.reserve(charge(90), tenants(100))
        await hold.recorded()
        await die(dying)
        await heir.keep_once()
        with pytest.raises(QuotaExhausted):
            await heir.reserve(charge(50), tenants(100))
        await pass_by(book, DEAD_AFTER_S - 1, heir)
        assert book.one("SELECT state FROM ledger") == "open"
        await pass_by(book, 2, heir)
        assert book.one("SELECT state, outcome, error_code, cost_micros, estimated FROM ledger")[:4] == (
            *("abandoned", "failed", "interrupted"),
            7,
        )
        await spend(heir, 50, tenants(100))
        invariants(book)


async def test_r04_late_usage_of_a_call_given_up_is_booked_once(store_url: str):
    async with books(store_url) as book:
        frozen, other = book.open(), book.open()
        hold = await frozen.reserve(charge(90), LIMIT)
        await hold.recorded()
        await other.keep_once()
        await pass_by(book, DEAD_AFTER_S + 1, other)
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (7, 0)
        for _ in range(2):
            await hold.settle(bill(80))
        assert book.one("SELECT state, outcome, error_code, cost_micros FROM ledger") == ("settled", "ok", "", 80)
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (80, 0)
        await spend(frozen, 5, LIMIT)
        await frozen.close()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (85, 0)


async def test_a_process_that_was_taken_for_dead_has_no_credit_left(store_url: str):
    """It stood still with a block in its hand; the block is somebody else's when it wakes up."""
    async with books(store_url) as book:
        frozen, other = book.open(), book.open()
        await spend(frozen, 10, tenants(1_280_000))
        name = frozen.process_id
        await other.keep_once()
        await pass_by(book, DEAD_AFTER_S + 1, other)
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (10, 0)
        hold = await other.reserve(charge(1_279_990), tenants(1_280_000))
        with pytest.raises(QuotaExhausted):
            await frozen.reserve(charge(5), tenants(1_280_000))
        assert frozen.process_id != name
        await hold.settle(bill(0))
        await other.keep_once()
        await spend(frozen, 5, tenants(1_280_000))
        invariants(book)


async def test_a_reservation_during_which_its_process_is_taken_for_dead_is_made_anew(store_url: str):
    """The sign of life before it is true, the hold is asked for after the burial: that credit is nobody's."""
    async with books(store_url) as book:
        frozen, other = book.open(), book.open()
        await spend(frozen, 10, LIMIT)
        await other.keep_once()
        frozen._life._sure_until = float("inf")  # it stands still between its look at the clock and its statement
        await pass_by(book, DEAD_AFTER_S + 1, other)
        hold = await frozen.reserve(charge(500_000), LIMIT)
        assert hold.process_id == frozen.process_id
        assert book.one("SELECT process_id FROM budget_holds") == frozen.process_id
        await hold.settle(bill(1))
        invariants(book)


async def test_calls_that_no_budget_bounds_end_too_when_their_process_dies_before_its_first_beat(store_url: str):
    async with books(store_url) as book:
        dying, heir = book.open(), book.open()
        await (await dying.reserve(charge(90))).recorded()
        await die(dying)
        await heir.keep_once()
        await pass_by(book, DEAD_AFTER_S + 1, heir)
        assert book.one("SELECT state FROM ledger") == "abandoned"


async def test_rows_of_a_process_that_nobody_knows_are_ended_in_due_time(store_url: str):
    async with books(store_url) as book:
        dying, heir = book.open(), book.open()
        await (await dying.reserve(charge(90))).recorded()
        await die(dying)
        rows = book.open()
        await rows._committer.submit(committing.Kind("forget", 0, lambda link, _: [link.write(FORGET)]), None)
        await heir.keep_once()
        await pass_by(book, DEAD_AFTER_S + 1, heir)
        assert book.one("SELECT state FROM ledger") == "abandoned"


FORGET = "DELETE FROM ledger_processes"


async def test_r11_no_wall_clock_makes_a_process_dead_or_a_hold_free(store_url: str):
    async with books(store_url) as book:
        ledger, other = book.open(), book.open()
        hold = await ledger.reserve(charge(60), tenants(100))
        for hours in (1, -1, -1, 1):
            book.clock.at += timedelta(hours=hours)
            book.clock.since_s += 1
            await ledger.keep_once()
            await other.keep_once()
            with pytest.raises(QuotaExhausted):
                await other.reserve(charge(50), tenants(100))
        await hold.settle(bill(60))
        assert book.one("SELECT COUNT(*) FROM ledger_processes") == 2
        assert book.one("SELECT state FROM ledger") == "settled"
        invariants(book)


async def test_r11_whoever_was_not_watching_buries_nobody(store_url: str):
    """The machine slept, or the database was away: nobody could give a sign, and the first to wake must not judge."""
    async with books(store_url) as book:
        first, second = book.open(), book.open()
        hold = await second.reserve(charge(60), LIMIT)
        await hold.recorded()
        await first.keep_once()
        book.clock.pass_by(3_600)
        await first.keep_once()
        await second.keep_once()
        assert book.one("SELECT state FROM ledger") == "open"
        await hold.settle(bill(60))
        assert book.one("SELECT state, cost_micros FROM ledger") == ("settled", 60)


async def test_r04_a_budget_that_was_never_asked_for_a_call_pays_for_it_within_its_limit_only(store_url: str):
    """The budget of a user came with a new configuration, after the call; its process held nothing of it any more."""
    users = Budget(Scope("user", "acme", "ann"), 100)
    async with books(store_url) as book:
        dying, living = book.open(), book.open()
        await spend(dying, 40, [users])
        await dying.keep_once()
        for _ in range(2):
            book.clock.pass_by(BEAT_S)
            await dying.keep_once()
        await (await dying.reserve(charge(50), LIMIT)).recorded()
        await (await living.reserve(charge(60), [users])).recorded()
        await dying.close()
        assert book.rows("SELECT spent_micros, held_micros FROM budgets WHERE scope = 'user:acme/ann'") == [(40, 60)]


async def test_closing_lets_everything_go_at_once(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 10, LIMIT)
        await (await ledger.reserve(charge(20), LIMIT)).recorded()
        await ledger.close()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (17, 0)
        assert book.one("SELECT COUNT(*) FROM ledger_processes") == 0
        assert book.one("SELECT COUNT(*) FROM ledger WHERE state = 'open'") == 0


class Outage:
    """Makes a ledger's database fail on demand: before a transaction, or after it was committed."""

    def __init__(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down = self.lose_answers = False
        self.failures = 0
        link: Link = ledger._committer._link
        commit, self.begun = ledger._committer._commit, 0

        def committed(on: Link, batch: list[object]) -> list[object]:
            if self.down:
                self.failures += 1
                raise Away("no route to host")
            results = commit(on, batch)
            if self.lose_answers:
                self.failures += 1
                link.close()
                raise Away("the connection is lost")
            return results

        monkeypatch.setattr(ledger._committer, "_commit", committed)
        monkeypatch.setattr("app.services.quota.ledger.BEAT_S", 0.1)  # gives up soon


async def test_r10_money_fails_closed(store_url: str, monkeypatch: pytest.MonkeyPatch):
    async with books(store_url) as book:
        ledger = book.open()
        outage = Outage(ledger, monkeypatch)
        outage.down = True
        for limits in ((), LIMIT):
            with pytest.raises(LedgerUnavailable) as refused:
                await ledger.reserve(charge(1), limits)
            assert refused.value.retry_after_s
        outage.down = False
        await spend(ledger, 1, LIMIT)
        outage.down = True
        hold = await ledger.reserve(charge(1), LIMIT)  # credit at hand; but nothing of an answer leaves
        with pytest.raises(LedgerUnavailable):
            await hold.recorded()
        outage.down = False
        await hold.settle(bill(0, outcome="failed"))


async def test_r10_what_was_spent_while_the_database_was_away_is_booked_when_it_is_back(
    store_url: str, monkeypatch: pytest.MonkeyPatch
):
    """Also the call whose row could not be written before it was made."""
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 1, LIMIT)
        outage = Outage(ledger, monkeypatch)
        recorded = await ledger.reserve(charge(50), LIMIT)
        await recorded.recorded()
        outage.down = True
        unrecorded = await ledger.reserve(charge(50), LIMIT)
        for hold, cost in ((recorded, 20), (unrecorded, 30)):
            with pytest.raises(LedgerUnavailable):
                await hold.settle(bill(cost))
        outage.down = False
        await ledger.keep_once()
        assert book.one("SELECT COUNT(*), SUM(cost_micros) FROM ledger WHERE state = 'settled'") == (3, 51)
        await ledger.close()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (51, 0)


async def test_r05_a_commit_whose_answer_was_lost_books_once(store_url: str, monkeypatch: pytest.MonkeyPatch):
    """Every statement is done, its answer lost, and it is done again: calls, credit and costs are there once."""
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 1, LIMIT)
        outage = Outage(ledger, monkeypatch)
        hold = await ledger.reserve(charge(50), LIMIT)
        await hold.recorded()
        outage.lose_answers = True
        settling = asyncio.create_task(hold.settle(bill(40)))
        while not outage.failures:
            await asyncio.sleep(0.01)
        outage.lose_answers = False
        await settling
        invariants(book)
        outage.lose_answers = True
        with pytest.raises(LedgerUnavailable):
            await ledger.reserve(charge(500_000), LIMIT)
        outage.lose_answers = False
        invariants(book)
        assert book.one("SELECT held_micros FROM budgets") == 500_000  # granted, and nobody knows
        book.clock.pass_by(5)
        await ledger.keep_once()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (41, 0)
        assert book.one("SELECT COUNT(*) FROM ledger WHERE state = 'settled'") == 2


async def test_r05_settling_twice_books_once(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        hold = await ledger.reserve(charge(50), LIMIT)
        await asyncio.gather(hold.settle(bill(40)), hold.settle(bill(50)), hold.settle(bill(1, usage=Usage(1, 1))))
        await hold.settle(bill(49))
        await ledger.close()
        assert book.one("SELECT COUNT(*), SUM(cost_micros) FROM ledger") == (1, 40)
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (40, 0)


async def test_settling_survives_the_cancellation_of_whoever_asked_for_it(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        hold = await ledger.reserve(charge(50), LIMIT)
        settling = asyncio.create_task(hold.settle(bill(40)))
        await asyncio.sleep(0)
        settling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await settling
        await hold.settle(bill(1))
        assert book.one("SELECT state, cost_micros FROM ledger") == ("settled", 40)


async def test_d13_a_deadlock_is_tried_again_and_nobody_hears_of_it(tmp_path, monkeypatch: pytest.MonkeyPatch):
    async with books(f"sqlite+aiosqlite:///{tmp_path / 'l.db'}") as book:
        ledger, failures = book.open(), [2]
        write_many = Link.write_many

        def deadlocked(*given: object) -> int:
            if failures[0]:
                failures[0] -= 1
                raise Again("deadlock detected")
            return write_many(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(Link, "write_many", deadlocked)
        await spend(ledger, 5, LIMIT)
        assert failures == [0]


async def test_postgres_may_end_our_connection_between_two_transactions(new_postgres_url: Callable[[], str]):
    async with books(new_postgres_url()) as book:
        ledger = book.open()
        await spend(ledger, 5, LIMIT)
        book.rows("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        await spend(ledger, 6, LIMIT)
        assert book.one("SELECT SUM(cost_micros) FROM ledger WHERE state = 'settled'") == 11


async def test_one_row_that_cannot_be_written_fails_alone(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await ledger.keep_once()
        good = [await ledger.reserve(charge(1)) for _ in range(3)]
        bad = await ledger.reserve(charge(1, prompt_tokens=1 << 70))
        good += [await ledger.reserve(charge(1)) for _ in range(3)]
        await asyncio.gather(*(hold.recorded() for hold in good))
        with pytest.raises(Exception, match=r"range|large"):
            await bad.recorded()
        await asyncio.gather(*(hold.settle(bill(1)) for hold in good))
        assert book.one("SELECT COUNT(*) FROM ledger WHERE state = 'settled'") == 6
