"""The ledger: every attempt at a model call is reserved before it is made and settled after, in micro-dollars.

A budget is a row that all processes share. Each process takes holds on it, in blocks while plenty is left and one call
at a time near the limit, so that the common case costs no look at the database: `spent + held <= limit` holds at every
moment. A call that finds no room waits while others' calls are still to be settled, then is refused.

Promised: a row is on disk before a call's answer leaves, settled before its last byte leaves; a process that is killed
leaves open rows, which another process (or its successor) books as abandoned once it has seen no sign of life for
DEAD_AFTER_S. Not promised: a power cut, unless the database waits for its disk (`durable`); and a process that stood
still for longer than DEAD_AFTER_S finishes calls whose holds are gone, which are booked, but may exceed the budget.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from app.ids import new_id
from app.records import Bill, Charge
from app.services.quota import book
from app.services.quota.book import Account, Scope, Settled, Settlement
from app.services.quota.committer import Committer, Kind, LedgerUnavailable
from app.services.quota.entry import closing, opening
from app.services.quota.life import BEAT_S, Life, elapsed_s
from app.services.quota.purse import NoRoom, Purse, TakenForDead
from graphs.errors import QuotaExhausted

log = logging.getLogger("pilothouse.ledger")

WAIT_S: Final = 5.0  # how long a call waits for others to be settled before it is refused
FORGET_S: Final = 600.0  # a purse that nobody used for so long is dropped

# Most answers take longer to come than it lingers; one that is quicker is recorded with its settlement.
_RECORD: Final[Kind[tuple[Any, ...], None]] = Kind("record", 0, book.record, linger=True)
# A stream's first word waits for its row: that is written while the model server thinks.
_RECORD_NOW: Final[Kind[tuple[Any, ...], None]] = Kind("record", 0, book.record)
_SETTLE: Final[Kind[Settlement, Settled]] = Kind("settle", 1, book.settle)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a scope may spend in a month."""

    scope: Scope
    limit_micros: int


class Hold:
    """A reserved call. Exactly one `settle` ends it; a second one changes nothing."""

    __slots__ = ("_ledger", "_recorded", "_settling", "call_id", "process_id", "reserved", "row")

    def __init__(
        self,
        ledger: "Ledger",
        call_id: str,
        process_id: str,
        reserved: Mapping[Purse, int],
        row: tuple[Any, ...],
        *,
        streamed: bool,
    ) -> None:
        self.call_id, self.process_id, self.reserved, self.row = call_id, process_id, reserved, row
        self._ledger = ledger
        self._recorded = ledger.record(row, at_once=streamed)
        self._settling: asyncio.Task[None] | None = None

    @property
    def granted_micros(self) -> int | None:
        """The least that any of its budgets granted; None where no budget bounds the call."""
        return min(self.reserved.values()) if self.reserved else None

    async def recorded(self) -> None:
        """Wait until the call's row is on disk. To be awaited before anything of the answer leaves. Raises
        LedgerUnavailable."""
        if not self._recorded.done():
            self._ledger.hurry()
            await asyncio.shield(self._recorded)
        self._recorded.result()

    async def settle(self, bill: Bill) -> None:
        """Book what the call cost and let the rest of its hold go; done when it is on disk.

        Raises LedgerUnavailable if the database is away for longer; what was spent is booked when it is back.
        """
        if self._settling is None:
            accounts = tuple(purse.account for purse in self.reserved)
            settlement = Settlement(self.call_id, closing(bill), accounts, self.process_id)
            self._settling = asyncio.create_task(self._ledger.book(self, settlement))
        await asyncio.shield(self._settling)


class Ledger:
    """The books of one process. Made by the workbench, which also runs `keep` behind it."""

    def __init__(
        self,
        committer: Committer,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = elapsed_s,
        wait_s: float = WAIT_S,
        on_spent: Callable[[Account, int, int], None] | None = None,
    ) -> None:
        """`on_spent` hears of each budget after a settlement: whose and of which month, spent and limit in micros."""
        self._committer, self._now, self._monotonic, self._wait_s = committer, now, monotonic, wait_s
        self._on_spent = on_spent
        self._purses: dict[Account, Purse] = {}
        self._life = Life(committer, monotonic, self._purses.clear)
        self._owed: list[tuple[Hold, Settlement]] = []
        self._saying: set[asyncio.Task[None]] = set()

    @property
    def commits_waiting(self) -> int:
        """Pieces of work that no transaction has taken up yet."""
        return self._committer.waiting

    @property
    def process_id(self) -> str:
        return self._life.process_id

    async def living(self) -> frozenset[str]:
        """The processes that nobody has found dead yet, this one among them. Raises LedgerUnavailable."""
        return frozenset(await self._life.sign())

    async def reserve(self, charge: Charge, limits: Sequence[Budget] = ()) -> Hold:
        """Set the call's worst case aside in every budget. Raises QuotaExhausted, LedgerUnavailable.

        Gives the hold at once; the row is written meanwhile (`Hold.recorded`).
        """
        now, until = self._now().astimezone(UTC), self._monotonic() + self._wait_s
        period = f"{now.year:04d}-{now.month:02d}"
        if len(limits) > 1:  # in one order everywhere, so that no two calls wait for what the other has reserved
            limits = sorted(limits, key=lambda limit: (limit.scope.kind, limit.scope.name))
        while True:
            if not self._life.is_sure:
                await self._life.ensure()
            process_id, reserved = self._life.process_id, {}
            try:
                for limit in limits:
                    purse = self._purse(limit, period)
                    wanted = charge.wanted_micros
                    if purse.take_at_hand(wanted):
                        reserved[purse] = wanted
                    else:
                        reserved[purse] = await self._take(purse, wanted, charge.least_micros, until)
            except TakenForDead:
                self._put_back(reserved)
                await self._life.sign()
                continue
            except NoRoom as error:
                self._put_back(reserved)
                raise _exhausted(error, now) from None
            except BaseException:
                self._put_back(reserved)
                raise
            if process_id == self._life.process_id:
                break  # else the credit went with the old name
        call_id = new_id()
        least = min(reserved.values(), default=charge.wanted_micros)
        row = opening(call_id, charge, now, period, least, process_id)
        return Hold(self, call_id, process_id, reserved, row, streamed=charge.streamed)

    async def standing(self, limit: Budget) -> tuple[int, int]:
        """Spent and limit of a budget in micros, as this process last saw them; reads them where it never did."""
        now = self._now().astimezone(UTC)
        while not (purse := self._purse(limit, f"{now.year:04d}-{now.month:02d}")).known:
            try:
                await purse.say(give=False)
            except TakenForDead:
                await self._life.sign()
        return purse.spent, purse.limit

    def hurry(self) -> None:
        """Write what lingers; for Hold."""
        self._committer.hurry()

    def record(self, row: tuple[Any, ...], *, at_once: bool) -> "asyncio.Future[None]":
        """Write a call down; for Hold."""
        recorded = self._committer.submit(_RECORD_NOW if at_once else _RECORD, row)
        recorded.add_done_callback(_heed)
        return recorded

    async def book(self, hold: Hold, settlement: Settlement) -> None:
        """End a call; for Hold. What the database cannot take now is owed, and written when it is back."""
        try:
            settled = await self._settle(hold, settlement)
        except LedgerUnavailable:
            self._owed.append((hold, settlement))
            raise
        self._pay(hold, settlement, settled)

    async def keep(self) -> None:
        """For ever: say that this process lives, give idle credit back, take over what dead processes left."""
        while True:
            try:
                await self.keep_once()
            except LedgerUnavailable:
                log.warning("the ledger could not be kept; trying again")
            except Exception:
                log.exception("keeping the ledger failed; trying again")
            await asyncio.sleep(BEAT_S)

    async def keep_once(self) -> None:
        """Raises LedgerUnavailable."""
        await self._life.watch(await self._life.sign())
        await self._settle_owed()
        now = self._monotonic()
        idle = {purse: now - purse.used_at >= BEAT_S for purse in self._purses.values() if not purse.is_busy}
        due = [purse for purse in idle if purse.unsaid or (idle[purse] and purse.free)]
        await asyncio.gather(*(self._say(purse, give=idle[purse]) for purse in due))
        for purse in idle:
            if purse.is_empty and now - purse.used_at >= FORGET_S:
                self._purses.pop(purse.account, None)

    async def close(self) -> None:
        """Let all credit go. Calls still open are booked as abandoned, as those of a killed process are."""
        while self._saying:
            await asyncio.wait(self._saying)
        try:
            await self._settle_owed()
            await self._life.end()
        except LedgerUnavailable:
            log.exception("the ledger could not be closed; others will take over", extra={"owed": len(self._owed)})
        await self._committer.close()

    def _purse(self, limit: Budget, period: str) -> Purse:
        account = Account(limit.scope, period)
        purse = self._purses.get(account)
        if purse is None:
            purse = Purse(account, self._life.process_id, self._committer, self._monotonic)
            self._purses[account] = purse
        purse.limit = limit.limit_micros
        return purse

    async def _take(self, purse: Purse, wanted: int, least: int, until: float) -> int:
        try:
            return await purse.take(wanted, least, until)
        finally:
            self._tell(purse)

    def _put_back(self, reserved: Mapping[Purse, int]) -> None:
        for purse, micros in reserved.items():
            purse.put_back(micros)
            self._tell(purse)

    def _tell(self, purse: Purse) -> None:
        """Let the other processes have what is left, where that is due."""
        if purse.is_due:
            saying = asyncio.create_task(self._say(purse, give=True))
            self._saying.add(saying)
            saying.add_done_callback(self._saying.discard)

    async def _settle(self, hold: Hold, settlement: Settlement) -> Settled:
        """Tried again while the database is away for a moment."""
        delay_s = 0.05
        while True:
            try:
                settled = await self._committer.submit(_SETTLE, settlement)
                if settled != "missing":
                    return settled
                again = self._committer.submit(_RECORD, hold.row)  # it could not be, when the call was made
                self._committer.hurry()
                await again
            except LedgerUnavailable:
                if delay_s > BEAT_S:
                    raise
                await asyncio.sleep(delay_s)
                delay_s *= 2

    async def _settle_owed(self) -> None:
        while self._owed:
            hold, settlement = self._owed[-1]
            settled = await self._settle(hold, settlement)
            self._owed.remove((hold, settlement))
            self._pay(hold, settlement, settled)

    def _pay(self, hold: Hold, settlement: Settlement, settled: Settled) -> None:
        if settled == "late" or hold.process_id != self._life.process_id:
            return  # its holds went with the old name
        for purse, reserved in hold.reserved.items():
            purse.pay(reserved, settlement.cost_micros)
            self._tell(purse)
        if self._on_spent is not None:
            for purse in hold.reserved:
                self._on_spent(purse.account, purse.spent, purse.limit)

    async def _say(self, purse: Purse, *, give: bool) -> None:
        """What cannot be said now is said at the next beat."""
        try:
            await purse.say(give=give)
        except (LedgerUnavailable, TakenForDead) as error:
            log.debug("a budget's standing could not be told", exc_info=error)
        else:
            self._tell(purse)  # what came free while it was being said


def _heed(recorded: "asyncio.Future[None]") -> None:
    """Whoever settles the call finds out by itself; without this the loop would complain that nobody looked."""
    if not recorded.cancelled():
        recorded.exception()


def _exhausted(error: NoRoom, now: datetime) -> QuotaExhausted:
    """The refusal; where waiting for other calls does not help, the next month does."""
    scope, retry_after_s = error.account.scope, 1.0
    if not error.for_now:
        year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
        retry_after_s = (datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()
    return QuotaExhausted(
        f"the month's budget of {scope.kind} {scope.name or scope.tenant_id} cannot cover this call",
        retry_after_s=retry_after_s,
    )
