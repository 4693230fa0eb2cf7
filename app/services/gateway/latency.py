"""A live 95th percentile that forgets: a histogram whose older counts weigh less with every new one."""

import math
from typing import Final

FIRST_MS: Final = 1.0
RATIO: Final = 1.15  # neighbouring buckets; the percentile is exact to half of it
BUCKETS: Final = 90  # up to 250 s
HALF_LIFE_CALLS: Final = 50.0
STALE_S: Final = 60.0  # without a call for so long, a model is expected to be twice as fast as it was
_LOG_RATIO: Final = math.log(RATIO)


class Latency:
    """Of one model: exponentially weighted over its calls, HALF_LIFE_CALLS deep."""

    __slots__ = ("_counts", "_growth", "_noted_at", "_total", "_weight")

    def __init__(self) -> None:
        self._counts = [0.0] * BUCKETS
        self._total, self._weight = 0.0, 1.0
        self._growth = 2 ** (1 / HALF_LIFE_CALLS)
        self._noted_at = 0.0

    def note(self, took_ms: float, now: float) -> None:
        place = 0 if took_ms <= FIRST_MS else min(int(math.log(took_ms / FIRST_MS) / _LOG_RATIO) + 1, BUCKETS - 1)
        self._noted_at = now
        # The newest weighs more instead of all others less: one addition a call.
        self._counts[place] += self._weight
        self._total += self._weight
        self._weight *= self._growth
        if self._weight > 1e12:
            scale = 1 / self._weight
            self._counts = [count * scale for count in self._counts]
            self._total, self._weight = self._total * scale, 1.0

    @property
    def p95_ms(self) -> float | None:
        """None before the first call."""
        if not self._total:
            return None
        left, place = 0.95 * self._total, -1
        while left > 0 and place < BUCKETS - 1:
            place += 1
            left -= self._counts[place]
        return float(FIRST_MS * RATIO ** max(place - 0.5, 0))

    def expected_ms(self, now: float) -> float | None:
        """The percentile, halved for every STALE_S without a call: a model that was slow once gets another chance."""
        p95_ms = self.p95_ms
        return None if p95_ms is None else p95_ms * 0.5 ** ((now - self._noted_at) // STALE_S)
