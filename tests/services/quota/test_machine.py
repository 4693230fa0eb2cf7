"""R01 as a state machine: processes reserve, settle, cancel, stand still, die and are buried on one database, in any
order that Hypothesis finds, and after every step the tables say what they must."""

import asyncio
import tempfile
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.services.quota.book import Scope
from app.services.quota.ledger import Budget, Hold, Ledger
from graphs.errors import QuotaExhausted
from tests.services.quota.kit import Books, bill, charge, migrated

T = TypeVar("T")
LIMITS = (Budget(Scope("tenant", "acme"), 1_000), Budget(Scope("user", "acme", "ann"), 600))
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # the disk of a shared machine is the slowest part
PROCESSES = st.integers(0, 2)
PICK = st.integers(0, 99)


@cache
def empty_database() -> bytes:
    """Migrated once: an example is a few milliseconds of work, a migration many."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "l.db"
        migrated(f"sqlite+aiosqlite:///{file}")
        return file.read_bytes()


class Budgets(RuleBasedStateMachine):
    """Three processes. `flying` are calls that were made and not settled, by the process that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        file = Path(self.folder.name) / "l.db"
        file.write_bytes(empty_database())
        self.book = Books(f"sqlite+aiosqlite:///{file}")
        self.living: list[Ledger] = []
        self.flying: list[tuple[Ledger, Hold, int]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @initialize()
    def are_born(self) -> None:
        async def start() -> None:
            for _ in range(3):
                self.living.append(self.book.open())

        self.run(start())

    @rule(process=PROCESSES, wanted=st.integers(0, 400), least=st.integers(0, 400), both=st.booleans())
    def reserve(self, process: int, wanted: int, least: int, both: bool) -> None:
        async def reserve() -> None:
            ledger = self.living[process]
            try:
                hold = await ledger.reserve(charge(wanted, min(least, wanted)), LIMITS if both else LIMITS[:1])
            except QuotaExhausted:
                return
            await hold.recorded()
            assert hold.granted_micros is not None
            assert min(least, wanted) <= hold.granted_micros <= wanted
            self.flying.append((ledger, hold, hold.granted_micros))

        self.run(reserve())

    @precondition(lambda self: self.flying)
    @rule(pick=PICK, share=st.floats(0, 1), twice=st.booleans())
    def settle(self, pick: int, share: float, twice: bool) -> None:
        _, hold, granted = self.flying.pop(pick % len(self.flying))
        self.run(hold.settle(bill(int(granted * share))))
        if twice:
            self.run(hold.settle(bill(granted)))

    @precondition(lambda self: self.flying)
    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        """The caller goes away in the middle of settling."""

        async def cancel() -> None:
            settling = asyncio.create_task(hold.settle(bill(granted, outcome="cancelled")))
            await asyncio.sleep(0)
            settling.cancel()
            await asyncio.wait({settling})
            assert hold._settling is not None
            await hold._settling

        _, hold, granted = self.flying.pop(pick % len(self.flying))
        self.run(cancel())

    @rule(process=PROCESSES)
    def beat(self, process: int) -> None:
        self.book.clock.pass_by(1)
        self.run(self.living[process].keep_once())

    @rule(process=PROCESSES)
    def die(self, process: int) -> None:
        """Killed, and another one started in its place. Its calls may still be running at their provider; they are
        nobody's."""

        async def die() -> None:
            await ledger._committer.close()
            self.living[process] = self.book.open()

        ledger = self.living[process]
        self.flying = [flight for flight in self.flying if flight[0] is not ledger]
        self.run(die())

    @rule(process=PROCESSES)
    def close(self, process: int) -> None:
        async def close() -> None:
            await ledger.close()
            self.living[process] = self.book.open()

        ledger = self.living[process]
        self.flying = [flight for flight in self.flying if flight[0] is not ledger]
        self.run(close())

    @rule(process=PROCESSES)
    def watch_for_long(self, process: int) -> None:
        """Of three processes one gives signs and watches; the others, unless they have nothing, are taken for dead.

        Their calls in flight are over: a real provider's answer to a process that stood still is a matter for
        test_life, where it is booked late, maybe beyond the budget.
        """
        watcher = self.living[process]
        self.flying = [flight for flight in self.flying if flight[0] is watcher]
        for _ in range(5):
            self.book.clock.pass_by(4)
            self.run(watcher.keep_once())

    @invariant()
    def nobody_overspends(self) -> None:
        for scope, _, spent, held in self.book.rows("SELECT scope, period, spent_micros, held_micros FROM budgets"):
            limit = next(budget.limit_micros for budget in LIMITS if str(budget.scope) == scope)
            assert held >= 0
            assert 0 <= spent <= spent + held <= limit, (scope, spent, held)

    @invariant()
    def holds_are_those_of_processes_that_are_known(self) -> None:
        rows = self.book.rows(
            "SELECT b.held_micros, (SELECT COALESCE(SUM(h.held_micros), 0) FROM budget_holds h "
            "WHERE h.scope = b.scope AND h.period = b.period) FROM budgets b"
        )
        assert all(held == holds for held, holds in rows)
        assert not self.book.rows(
            "SELECT 1 FROM budget_holds WHERE process_id NOT IN (SELECT process_id FROM ledger_processes)"
        )

    @invariant()
    def what_is_spent_is_what_the_rows_say(self) -> None:
        spent = self.book.one(
            "SELECT (SELECT COALESCE(SUM(spent_micros), 0) FROM budgets WHERE scope = 'tenant:acme') + "
            "(SELECT COALESCE(SUM(unbooked_micros), 0) FROM budget_holds WHERE scope = 'tenant:acme')"
        )
        assert spent == self.book.one("SELECT COALESCE(SUM(cost_micros), 0) FROM ledger WHERE state <> 'open'")

    @invariant()
    def calls_in_flight_are_covered_by_what_is_held(self) -> None:
        held = self.book.one(
            "SELECT COALESCE(SUM(held_micros - unbooked_micros), 0) FROM budget_holds WHERE scope = 'tenant:acme'"
        )
        assert sum(granted for _, _, granted in self.flying) <= held

    def teardown(self) -> None:
        async def close() -> None:
            for ledger in self.book.ledgers:
                await ledger.close()

        self.run(close())
        self.loop.close()
        self.folder.cleanup()


Budgets.TestCase.settings = settings(
    max_examples=15, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestR01Budgets = Budgets.TestCase
