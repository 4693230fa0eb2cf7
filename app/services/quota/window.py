"""How much was used in the last minute: a sliding window that is exact, in this process or shared through Redis.

Uses are counted in slots of SLOT_MS. A slot leaves the window when its last moment is a minute old, so a limit can be
undershot for one slot and is never exceeded in any minute, across whatever edge. Time is monotonic here and Redis's own
there: a clock that jumps opens no window and closes none.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

WINDOW_S: Final = 60.0
SLOT_MS: Final = 20
SLOTS: Final = int(WINDOW_S * 1_000) // SLOT_MS + 1  # by then also the last moment of a slot is a minute old
_SWEEP_EVERY: Final = 4_096  # takes between two looks for counts that nobody has touched for a window


@dataclass(frozen=True, slots=True)
class Use:
    """A wish to use `amount` of what `key` may use in a minute; 0 only looks, and is never refused."""

    key: str
    limit: int
    amount: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of several uses that are granted together or not at all.

    `refused` is the place of the first that did not fit, None where all did; `wait_s` how long until it may. `left` is
    what each key has left now, `resets_s` when its oldest use leaves the window, 0 where it has none. `slot` names the
    moment, for a correction.
    """

    refused: int | None
    wait_s: float
    left: tuple[int, ...]
    resets_s: tuple[float, ...]
    slot: int


class Windows(Protocol):
    async def take(self, uses: Sequence[Use]) -> Taken:
        """Use all of it, or nothing where one does not fit."""
        ...

    async def correct(self, keys: Sequence[str], slot: int, more: int) -> None:
        """Add to (or below 0, take back from) what was used at that slot, once the true amount is known."""
        ...


@dataclass(slots=True)
class _Count:
    """The uses of one key: slots in order, and what was used in each."""

    slots: deque[int] = field(default_factory=deque)
    used: dict[int, int] = field(default_factory=dict)
    total: int = 0

    def expire(self, now: int) -> None:
        while self.slots and self.slots[0] <= now - SLOTS:
            self.total -= self.used.pop(self.slots.popleft())

    def add(self, slot: int, amount: int) -> None:
        if slot not in self.used:
            self.slots.append(slot)
            self.used[slot] = 0
        self.used[slot] += amount
        self.total += amount

    def slots_until(self, room: int, now: int) -> int:
        """How many slots from now on until so much has left the window; a whole window where it never will."""
        gone = 0
        for slot in self.slots:
            gone += self.used[slot]
            if gone >= room:
                return slot + SLOTS - now
        return SLOTS


class LocalWindows:
    """Counts of this process alone."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._counts: dict[str, _Count] = {}
        self._takes = 0

    async def take(self, uses: Sequence[Use]) -> Taken:
        now = int(self._monotonic() * 1_000) // SLOT_MS
        self._takes += 1
        if self._takes % _SWEEP_EVERY == 0:
            self._sweep(now)
        counts = [self._count(use.key, now) for use in uses]
        for place, (use, count) in enumerate(zip(uses, counts, strict=True)):
            if use.amount and (over := count.total + use.amount - use.limit) > 0:
                wait_s = count.slots_until(over, now) * SLOT_MS / 1_000
                return Taken(place, wait_s, _left(uses, counts), _resets_s(counts, now), now)
        for use, count in zip(uses, counts, strict=True):
            if use.amount:
                count.add(now, use.amount)
        return Taken(None, 0.0, _left(uses, counts), _resets_s(counts, now), now)

    async def correct(self, keys: Sequence[str], slot: int, more: int) -> None:
        for key in keys:
            count = self._counts.get(key)
            if count is not None and slot in count.used:
                # A correction never gives back more than that moment used.
                count.add(slot, max(more, -count.used[slot]))

    def _count(self, key: str, now: int) -> _Count:
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = _Count()
        count.expire(now)
        return count

    def _sweep(self, now: int) -> None:
        for key, count in list(self._counts.items()):
            count.expire(now)
            if not count.slots:
                del self._counts[key]


def _left(uses: Sequence[Use], counts: Sequence[_Count]) -> tuple[int, ...]:
    return tuple(max(0, use.limit - count.total) for use, count in zip(uses, counts, strict=True))


def _resets_s(counts: Sequence[_Count], now: int) -> tuple[float, ...]:
    return tuple((count.slots[0] + SLOTS - now) * SLOT_MS / 1_000 if count.slots else 0.0 for count in counts)
