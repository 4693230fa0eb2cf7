"""The ledger: every attempt at a model call is reserved before it is made and settled after, in micro-dollars.

A budget is a row that all processes share. Each process takes holds on it, in blocks while plenty is left and one call
at a time near the limit, so that the common case costs no look at the database: `spent + held <= limit` holds at every
moment. A call that finds no room waits while others' calls are still to be settled, then is refused.

Promised: a row is on disk before a call's answer leaves, settled before its last byte leaves; a process that is killed
leaves open rows, which another process (or its successor) books as abandoned once it has seen no sign of life for
DEAD_AFTER_S. Not promised: a power cut, unless the database waits for its disk (`durable`).
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from uuid import uuid4

from app.records import Bill, Charge
from app.services.quota import book
from app.services.quota.book import Account, Ask, Grant, Pulse, Return, Scope, Settlement
from app.services.quota.committer import Committer, Kind, LedgerUnavailable
from graphs.errors import QuotaExhausted

log = logging.getLogger("pilothouse.ledger")

BLOCK_SHARE: Final = 128  # a process takes at most this part of a budget ahead
BEAT_S: Final = 2.0
DEAD_AFTER_S: Final = 15.0
WAIT_S: Final = 5.0  # how long a call waits for others to be settled before it is refused
POLL_S: Final = 0.05  # how often it looks whether another process has settled


@dataclass(frozen=True, slots=True)
class Budget:
    """What a scope may spend in a month."""

    scope: Scope
    limit_micros: int


@dataclass(slots=True)
class _Purse:
    """What this process holds of one account: `free` is reserved by no call, `unbooked` is spent by settled ones.

    `spent` is the whole budget's as last read plus our own since. `tight` while less than a quarter is left: then
    credit goes back at once, so that the other processes can have it.
    """

    account: Account
    limit_micros: int
    free_micros: int = 0
    unbooked_micros: int = 0
    spent_micros: int = 0
    tight: bool = True
    used_at: float = 0.0
    opened: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Hold:
    """A reserved call. Exactly one `settle` ends it; a second one changes nothing."""

    def __init__(
        self,
        ledger: "Ledger",
        call_id: str,
        process_id: str,
        reserved: Mapping[Account, int],
        recorded: "asyncio.Future[None]",
    ) -> None:
        self.call_id = call_id
        self._ledger, self._process_id, self._reserved, self._recorded = ledger, process_id, reserved, recorded
        self._settling: asyncio.Future[None] | None = None

    @property
    def granted_micros(self) -> int | None:
        """The least that any of its budgets granted; None where no budget bounds the call."""
        return min(self._reserved.values()) if self._reserved else None

    async def recorded(self) -> None:
        """Wait until the call's row is on disk. To be awaited before anything of the answer leaves."""
        await asyncio.shield(self._recorded)

    async def settle(self, bill: Bill) -> None:
        """Book what the call cost and let the rest of its hold go; done when it is on disk."""
        if self._settling is None:
            settlement = Settlement(self.call_id, _settled(bill), tuple(self._reserved))
            self._settling = asyncio.ensure_future(self._ledger.book(settlement, self._reserved, self._process_id))
        await asyncio.shield(self._settling)


class Ledger:
    """The books of one process. Made by the workbench, which also runs `keep` behind it."""

    def __init__(
        self,
        committer: Committer,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
        wait_s: float = WAIT_S,
        on_spent: Callable[[Account, int, int], None] | None = None,
    ) -> None:
        """`on_spent` hears of each budget after a settlement: whose and of which month, spent and limit in micros."""
        self._committer, self._now, self._monotonic, self._wait_s = committer, now, monotonic, wait_s
        self._on_spent = on_spent
        self._purses: dict[Account, _Purse] = {}
        self._beats: dict[str, tuple[int, float]] = {}
        self._beat, self._heard_at = 0, -DEAD_AFTER_S
        self._signing = asyncio.Lock()
        self._opening: Kind[Mapping[str, Any], None] = Kind("open", 0, book.record_open)
        self._settling: Kind[Settlement, bool] = Kind("settle", 1, book.settle)
        self._accounts: Kind[Account, int] = Kind("account", -1, book.open_accounts)
        self._burying: Kind[tuple[str, int], int] = Kind("bury", 5, book.bury)
        self._be_born()

    def _be_born(self) -> None:
        """Take a name under which nothing is held yet."""
        self.process_id = uuid4().hex
        self._granting: Kind[Ask, Grant] = Kind("grant", 2, partial(book.grant, self.process_id))
        self._returning: Kind[Return, None] = Kind("return", 3, partial(book.give_back, self.process_id))
        self._beating: Kind[int, Pulse] = Kind("beat", 4, partial(book.beat, self.process_id))

    @property
    def commits_waiting(self) -> int:
        """Pieces of work that no transaction has taken up yet."""
        return self._committer.waiting

    async def reserve(self, charge: Charge, limits: Sequence[Budget] = ()) -> Hold:
        """Set the call's worst case aside in every budget. Raises QuotaExhausted, LedgerUnavailable.

        Gives the hold at once; the row is written meanwhile (`Hold.recorded`).
        """
        now = self._now().astimezone(UTC)
        period = f"{now:%Y-%m}"
        reserved: dict[Account, int] = {}
        try:
            for limit in limits:
                account = Account(limit.scope, period)
                reserved[account] = await self._take(self._purse(account, limit.limit_micros), charge)
        except BaseException:
            self._put_back(reserved)
            raise
        call_id = uuid4().hex
        row = _row(call_id, charge, now, period, min(reserved.values(), default=charge.wanted_micros), self.process_id)
        return Hold(self, call_id, self.process_id, reserved, self._committer.submit(self._opening, row))

    async def standing(self, limit: Budget) -> tuple[int, int]:
        """Spent and limit of a budget in micros, as this process last saw them; reads them where it never did."""
        purse = self._purse(Account(limit.scope, f"{self._now():%Y-%m}"), limit.limit_micros)
        if not purse.opened:
            await self._open(purse)
        return purse.spent_micros, purse.limit_micros

    async def keep(self) -> None:
        """For ever: say that this process lives, give idle credit back, take over what dead processes left."""
        while True:
            try:
                await self.keep_once()
            except LedgerUnavailable:
                log.warning("the ledger could not be kept; trying again")
            await asyncio.sleep(BEAT_S)

    async def keep_once(self) -> None:
        async with self._signing:
            pulse = await self._sign()
        now = self._monotonic()
        self._beats = {
            process: (beat, self._beats[process][1] if self._beats.get(process, (-1, 0.0))[0] == beat else now)
            for process, beat in pulse.beats.items()
        }
        for process, (beat, since) in self._beats.items():
            if process != self.process_id and now - since >= DEAD_AFTER_S:
                abandoned = await self._committer.submit(self._burying, (process, beat))
                log.warning("took over from a dead process", extra={"process": process, "abandonedCalls": abandoned})
        for purse in self._purses.values():
            idle = now - purse.used_at >= BEAT_S
            if purse.unbooked_micros or (idle and purse.free_micros):
                await self._return(purse, purse.free_micros if idle else 0)

    async def _sign(self) -> Pulse:
        """Give a sign of life. If others took this process for dead, its credit is theirs and it starts anew."""
        self._beat += 1
        pulse = await self._committer.submit(self._beating, self._beat)
        if not pulse.known and self._beat > 1:
            log.warning("this process was taken for dead; its credit is gone")
            for purse in self._purses.values():
                purse.free_micros = purse.unbooked_micros = 0
            self._be_born()
            self._beat = 1
            pulse = await self._committer.submit(self._beating, self._beat)
        self._heard_at = self._monotonic()
        return pulse

    async def _stay_alive(self) -> None:
        """Credit counts only while nobody can have taken this process for dead."""
        async with self._signing:
            if self._monotonic() - self._heard_at >= DEAD_AFTER_S / 2:
                await self._sign()

    async def close(self) -> None:
        """Give all credit back. Calls still open stay so, and are booked as abandoned later."""
        for purse in self._purses.values():
            if purse.free_micros or purse.unbooked_micros:
                await self._return(purse, purse.free_micros)
        await self._committer.close()

    # Credit

    def _purse(self, account: Account, limit_micros: int) -> _Purse:
        purse = self._purses.get(account)
        if purse is None:
            purse = self._purses[account] = _Purse(account, limit_micros)
        purse.limit_micros = limit_micros
        return purse

    async def _take(self, purse: _Purse, charge: Charge) -> int:
        """Credit for one call, from what is at hand or from the database. Raises QuotaExhausted."""
        purse.used_at = self._monotonic()
        if purse.used_at - self._heard_at >= DEAD_AFTER_S / 2:
            await self._stay_alive()
        if purse.opened and purse.free_micros >= charge.wanted_micros and not purse.lock.locked():
            purse.free_micros -= charge.wanted_micros
            return charge.wanted_micros
        async with purse.lock:
            if not purse.opened:
                await self._open(purse)
            return await self._draw(purse, charge, self._monotonic() + self._wait_s)

    async def _draw(self, purse: _Purse, charge: Charge, until: float) -> int:
        wanted, least = charge.wanted_micros, charge.least_micros
        while True:
            if purse.free_micros >= wanted:
                purse.free_micros -= wanted
                return wanted
            purse.settled.clear()
            missing, at_hand = wanted - purse.free_micros, purse.free_micros
            block = max(wanted, purse.limit_micros // BLOCK_SHARE)
            unbooked, purse.unbooked_micros = purse.unbooked_micros, 0
            ask = Ask(purse.account, unbooked, purse.limit_micros, missing, max(least - at_hand, 1), block)
            grant = await self._committer.submit(self._granting, ask)
            purse.spent_micros = grant.spent_micros + purse.unbooked_micros
            left = purse.limit_micros - grant.spent_micros - grant.held_micros
            purse.tight = left < purse.limit_micros // 4
            if grant.granted_micros:
                purse.free_micros += grant.granted_micros
                taken = min(wanted, purse.free_micros)
                purse.free_micros -= taken
                return taken
            # Free credit of ours is held too, but no settlement will ever give it back.
            if grant.spent_micros + least > purse.limit_micros or grant.held_micros <= purse.free_micros:
                raise _exhausted(purse, self._now())
            if self._monotonic() >= until:
                raise _exhausted(purse, self._now(), retry_after_s=1.0)
            try:
                async with asyncio.timeout(POLL_S):
                    await purse.settled.wait()
            except TimeoutError:
                pass  # another process may have settled

    async def _open(self, purse: _Purse) -> None:
        purse.spent_micros = await self._committer.submit(self._accounts, purse.account)
        purse.opened = True

    def _return(self, purse: _Purse, free_micros: int) -> "asyncio.Future[None]":
        """Book what is spent, and let so much of the free credit go."""
        unbooked, purse.unbooked_micros = purse.unbooked_micros, 0
        purse.free_micros -= free_micros
        return self._committer.submit(self._returning, Return(purse.account, unbooked, free_micros))

    def _put_back(self, reserved: Mapping[Account, int]) -> None:
        for account, micros in reserved.items():
            purse = self._purses[account]
            purse.free_micros += micros
            purse.settled.set()

    # Settling

    async def book(self, settlement: Settlement, reserved: Mapping[Account, int], process_id: str) -> None:
        """Settle a row. Tried again while the database is away for a moment: what was spent is not forgotten."""
        delay_s = 0.05
        while True:
            try:
                booked = await self._committer.submit(self._settling, settlement)
                break
            except LedgerUnavailable:
                if delay_s > BEAT_S:
                    raise
                await asyncio.sleep(delay_s)
                delay_s *= 2
        if not booked or process_id != self.process_id:
            return  # the holds of a process that was taken for dead are gone
        cost = settlement.values["cost_micros"]
        for account, held in reserved.items():
            purse = self._purses[account]
            purse.spent_micros += cost
            purse.unbooked_micros += cost
            purse.free_micros += held - cost  # below 0 where the call cost more than its worst case said
            if purse.tight and not purse.lock.locked():
                self._return(purse, max(purse.free_micros, 0))
            purse.settled.set()
            if self._on_spent is not None:
                self._on_spent(account, purse.spent_micros, purse.limit_micros)


def _exhausted(purse: _Purse, now: datetime, retry_after_s: float | None = None) -> QuotaExhausted:
    """The refusal; where waiting for other calls does not help, the next month does."""
    if retry_after_s is None:
        year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
        retry_after_s = (datetime(year, month, 1, tzinfo=UTC) - now).total_seconds()
    return QuotaExhausted(
        f"the month's budget of {purse.account.scope.kind} {purse.account.scope.name or purse.account.scope.tenant_id} "
        "cannot cover this call",
        retry_after_s=retry_after_s,
    )


def _row(
    call_id: str, charge: Charge, now: datetime, period: str, reserved_micros: int, process_id: str
) -> dict[str, Any]:
    payer = charge.payer
    return {
        "call_id": call_id,
        "request_id": payer.request_id,
        "run_id": payer.run_id,
        "tenant_id": payer.tenant_id,
        "user_id": payer.user_id,
        "key_id": payer.key_id,
        "feature": payer.feature,
        "task": charge.task,
        "route": charge.route,
        "model": charge.model,
        "model_version": "",
        "provider": charge.provider,
        "attempt": charge.attempt,
        "streamed": charge.streamed,
        "state": "open",
        "outcome": "",
        "error_code": "",
        "period": period,
        "day": f"{period}-{now.day:02d}",
        "reserved_micros": reserved_micros,
        "cost_micros": charge.prompt_micros,
        "price_source": charge.price_source,
        "input_tokens": charge.prompt_tokens,
        "output_tokens": 0,
        "cached_input_tokens": 0,
        "cache_write_tokens": 0,
        "estimated": True,
        "process_id": process_id,
        "started_us": int(now.timestamp() * 1e6),
        "latency_ms": 0.0,
        "first_token_ms": None,
    }


def _settled(bill: Bill) -> dict[str, Any]:
    usage = bill.usage
    return {
        "state": "settled",
        "outcome": bill.outcome,
        "error_code": bill.error_code,
        "model_version": bill.model_version,
        "cost_micros": bill.cost_micros,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_input_tokens": usage.cached_input_tokens,
        "cache_write_tokens": usage.cache_write_tokens,
        "estimated": usage.estimated,
        "latency_ms": bill.latency_ms,
        "first_token_ms": bill.first_token_ms,
    }
