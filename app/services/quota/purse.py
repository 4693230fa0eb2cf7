"""What one process holds of one budget: credit taken ahead in blocks, so that most calls need no look at the database.

While less than a quarter of the budget is left, credit is taken one call at a time and goes back at once, so that the
other processes can have it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from app.services.quota import book
from app.services.quota.book import Account, Ask, Grant
from app.services.quota.committer import Committer, Kind, LedgerUnavailable

BLOCK_SHARE: Final = 128  # a process takes at most this part of a budget ahead
POLL_S: Final = 0.05  # how often a call that finds no room looks whether another process has settled

_ASK: Final[Kind[Ask, Grant | None]] = Kind("ask", 2, book.ask)


class TakenForDead(Exception):
    """The process's holds are gone; it needs a new name first."""


class NoRoom(Exception):
    """The budget cannot cover the call. `for_now`: calls in flight may yet leave enough."""

    def __init__(self, account: Account, *, for_now: bool) -> None:
        super().__init__(str(account.scope))
        self.account, self.for_now = account, for_now


class Purse:
    """Of an account, `free` is reserved by no call, `reserved` is by calls in flight; both are held in the database.

    `spent` is the whole budget's as last read, plus what calls of this process have cost since.
    """

    __slots__ = (
        "_committer",
        "_lock",
        "_monotonic",
        "_settled",
        "_tight",
        "account",
        "free",
        "known",
        "limit",
        "process_id",
        "reserved",
        "spent",
        "unsaid",
        "used_at",
    )

    def __init__(self, account: Account, process_id: str, committer: Committer, monotonic: Callable[[], float]) -> None:
        self.account, self.process_id = account, process_id
        self._committer, self._monotonic = committer, monotonic
        self.limit = self.free = self.reserved = self.spent = 0
        self.known = False
        """Whether the database has been asked how the budget stands."""
        self.unsaid = False
        """Whether calls have used up credit since the database was last told."""
        self.used_at = monotonic()
        self._tight = True
        self._lock = asyncio.Lock()
        self._settled = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        """Whether somebody is asking the database just now, and will go on to."""
        return self._lock.locked()

    @property
    def is_due(self) -> bool:
        """Whether others should hear at once what is left, and nobody is about to say it."""
        return bool(self.unsaid or self.free) and (self._tight or self.free < 0) and not self.is_busy

    @property
    def is_empty(self) -> bool:
        return not (self.reserved or self.free or self.unsaid or self.is_busy)

    def take_at_hand(self, micros: int) -> bool:
        """Reserve credit if it is there, and nobody waits for it."""
        self.used_at = self._monotonic()
        if self.free < micros or self._lock.locked():
            return False
        self._reserve(micros)
        return True

    async def take(self, wanted: int, least: int, until: float) -> int:
        """Reserve credit, waiting for that of calls in flight if need be. Raises NoRoom, TakenForDead,
        LedgerUnavailable."""
        async with self._lock:
            while True:
                if self.free >= wanted:
                    return self._reserve(wanted)
                self._settled.clear()
                at_hand = self.free = max(self.free, 0)
                grant = await self._ask(wanted - at_hand, least - at_hand)
                if grant.granted and self.free >= least:
                    return self._reserve(min(wanted, self.free))
                # Free credit of ours is held too, but no settlement will ever give it back.
                if grant.spent + least > self.limit or grant.held <= self.free:
                    raise NoRoom(self.account, for_now=False)
                if self._monotonic() >= until:
                    raise NoRoom(self.account, for_now=True)
                try:
                    async with asyncio.timeout(POLL_S):
                        await self._settled.wait()
                except TimeoutError:
                    pass  # another process may have settled

    def put_back(self, micros: int) -> None:
        """Undo a reservation that no call was made with."""
        self.reserved -= micros
        self.free += micros
        self._settled.set()

    def pay(self, reserved: int, cost: int) -> None:
        """A call has ended; the database knows."""
        self.reserved -= reserved
        self.free += reserved - cost  # below 0 where the call cost more than its worst case said
        self.spent += cost
        self.unsaid = True
        self._settled.set()

    async def say(self, *, give: bool) -> None:
        """Tell the database what is used up, and with `give` let free credit go. Raises TakenForDead,
        LedgerUnavailable."""
        async with self._lock:
            if self.known and not self.unsaid and not (give and self.free):
                return  # somebody else has said it
            self.free = 0 if give else max(self.free, 0)
            await self._ask(0, 0)

    def _reserve(self, micros: int) -> int:
        self.free -= micros
        self.reserved += micros
        return micros

    async def _ask(self, wanted: int, least: int) -> Grant:
        """To be called with the lock held: a statement that overtook another would undo its grant."""
        self.unsaid = False
        ask = Ask(
            self.account,
            self.process_id,
            keep=self.reserved + self.free,
            limit=self.limit,
            wanted=wanted,
            least=least,
            block=max(wanted, self.limit // BLOCK_SHARE),
        )
        try:
            grant = await self._committer.submit(_ASK, ask)
        except (LedgerUnavailable, asyncio.CancelledError):
            self.unsaid = True
            raise
        if grant is None:
            raise TakenForDead
        self.free += grant.granted
        self.spent = grant.spent
        self.known = True
        self._tight = self.limit - grant.spent - grant.held < self.limit // 4
        return grant
