"""Where each budget's next mark is: the share whose passing is told next."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

NEVER: Final = 1 << 62


class Account(Protocol):
    """A budget of one month. Hashable; `str(scope)` names it."""

    @property
    def scope(self) -> object: ...

    @property
    def period(self) -> str: ...


@dataclass(frozen=True, slots=True)
class _Mark:
    limit_micros: int
    next_micros: int


class Marks:
    """The next mark of each budget. A budget that was never seen has passed none, so a new process asks anew and
    relies on the alert's row to be there already."""

    def __init__(self, shares: Sequence[float]) -> None:
        self._shares = tuple(sorted(set(shares)))
        self._marks: dict[Account, _Mark] = {}

    def passed(self, account: Account, spent_micros: int, limit_micros: int) -> float | None:
        """The highest share that has been passed since the last look; None mostly. A budget of 0 has no shares."""
        mark = self._marks.get(account)
        if mark is not None and spent_micros < mark.next_micros and limit_micros == mark.limit_micros:
            return None
        reached, next_micros = None, NEVER
        for share in self._shares:
            at = max(1, math.ceil(share * limit_micros))
            if spent_micros < at:
                next_micros = at
                break
            reached = share
        self._marks[account] = _Mark(limit_micros, next_micros)
        return reached if limit_micros > 0 else None
