"""When a model is left alone for a while: a circuit breaker with half-open probes, and cool-downs that servers ask for.

One for each provider and model. Counts the calls of a sliding window; opens when too many of them failed or were slow;
after a pause lets at most `probes` calls through, and one that succeeds closes it. Cancelled calls count for nothing.
Never blocks, never counts time by itself: `now` is monotonic seconds and is given.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]

BUCKETS: Final = 30
PROBE_DEADLINE_S: Final = 30.0  # a probe that has not come back by then has lost its place


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """Rates are shares of the calls in the window; `slow_call_s` None never counts a call as slow."""

    window_s: float = 30.0
    min_calls: int = 10
    failure_rate: float = 0.5
    slow_call_s: float | None = None
    slow_rate: float = 0.8
    open_s: float = 5.0
    max_open_s: float = 60.0
    probes: int = 1


class _Bucket:
    __slots__ = ("calls", "failed", "number", "slow")

    def __init__(self) -> None:
        self.number, self.calls, self.failed, self.slow = -1, 0, 0, 0


class Breaker:
    """The breaker of one model. `admit` before a call; then exactly one of `succeed`, `fail`, `abandon`."""

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[State], None] | None = None,
    ) -> None:
        self._policy, self._jitter, self._on_change = policy, jitter, on_change
        self._buckets = [_Bucket() for _ in range(BUCKETS)]
        self._open_until = 0.0
        self._cool_until = 0.0
        self._opened = 0  # times in a row
        self._probes: dict[int, float] = {}
        self._next_probe = 1

    def state(self, now: float) -> State:
        if now < self._open_until:
            return "open"
        return "half_open" if self._opened else "closed"

    def wait_s(self, now: float) -> float:
        """Seconds until a call may be tried; 0 where it may be now."""
        return max(0.0, self._open_until - now, self._cool_until - now)

    def admit(self, now: float) -> int | None:
        """A pass: 0 for an ordinary call, a number for a probe; None where none may go."""
        if now < self._open_until or now < self._cool_until:
            return None
        if not self._opened:
            return 0
        self._probes = {probe: until for probe, until in self._probes.items() if until > now}
        if len(self._probes) >= self._policy.probes:
            return None
        probe, self._next_probe = self._next_probe, self._next_probe + 1
        self._probes[probe] = now + PROBE_DEADLINE_S
        return probe

    def succeed(self, ticket: int, now: float, took_s: float) -> None:
        """The call went well; slowly perhaps."""
        slow = self._policy.slow_call_s is not None and took_s > self._policy.slow_call_s
        if ticket:
            self._probes.pop(ticket, None)
            if slow:
                self._open(now)
            else:
                self._close()
            return
        bucket = self._bucket(now)
        bucket.calls += 1
        bucket.slow += slow
        if slow:
            self._judge(now)

    def fail(self, ticket: int, now: float) -> None:
        """The model or its server failed."""
        if ticket:
            self._probes.pop(ticket, None)
            self._open(now)
            return
        bucket = self._bucket(now)
        bucket.calls += 1
        bucket.failed += 1
        self._judge(now)

    def trip(self, ticket: int, now: float) -> None:
        """Open at once and for as long as it goes: one answer was enough to know, as with a refused credential."""
        self._probes.pop(ticket, None)
        self._opened = max(self._opened, 16)
        self._open(now)

    def abandon(self, ticket: int) -> None:
        """The call ended for a reason that says nothing of the model: it was cancelled, or was itself wrong."""
        self._probes.pop(ticket, None)

    def cool_down(self, ticket: int, now: float, wait_s: float) -> None:
        """The server asked to be left alone for so long. No failure of its own."""
        self._probes.pop(ticket, None)
        self._cool_until = max(self._cool_until, now + wait_s)

    def open_until(self, until: float, now: float) -> None:
        """Take over another process's verdict; only ever as advice, and only while this one has seen no success."""
        if until > now and self._bucket(now).calls == self._bucket(now).failed:
            self._opened = max(self._opened, 1)
            self._open_until = max(self._open_until, min(until, now + self._policy.max_open_s))

    def _bucket(self, now: float) -> _Bucket:
        number = int(now / self._policy.window_s * BUCKETS)
        bucket = self._buckets[number % BUCKETS]
        if bucket.number != number:
            bucket.number, bucket.calls, bucket.failed, bucket.slow = number, 0, 0, 0
        return bucket

    def _judge(self, now: float) -> None:
        oldest = int(now / self._policy.window_s * BUCKETS) - BUCKETS + 1
        calls = failed = slow = 0
        for bucket in self._buckets:
            if bucket.number >= oldest:
                calls, failed, slow = calls + bucket.calls, failed + bucket.failed, slow + bucket.slow
        if calls < self._policy.min_calls or self._opened:
            return
        if failed >= self._policy.failure_rate * calls or slow >= self._policy.slow_rate * calls:
            self._open(now)

    def _open(self, now: float) -> None:
        """Longer each time in a row, with up to a fifth on top so that processes do not probe in step."""
        pause = min(self._policy.open_s * 2 ** min(self._opened, 16), self._policy.max_open_s)
        self._opened += 1
        self._open_until = now + pause * (1 + 0.2 * self._jitter())
        self._probes.clear()
        if self._on_change is not None:
            self._on_change("open")

    def _close(self) -> None:
        self._opened, self._open_until, self._cool_until = 0, 0.0, 0.0
        self._probes.clear()
        for bucket in self._buckets:
            bucket.number = -1
        if self._on_change is not None:
            self._on_change("closed")


class RetryBudget:
    """How many retries a server may make: a share of its calls, and a few a minute in any case."""

    def __init__(self, share: float, floor_a_minute: int) -> None:
        self._share, self._per_s = share, floor_a_minute / 60
        self._most = max(float(floor_a_minute), 1.0)
        self._left, self._at = self._most, 0.0

    def note_call(self) -> None:
        """A first attempt was made: it earns a share of a retry."""
        self._left = min(self._left + self._share, max(self._most, 100 * self._share))

    def take(self, now: float) -> bool:
        """Whether one more retry is allowed; it is taken then."""
        self._left = min(self._left + max(0.0, now - self._at) * self._per_s, max(self._most, 100 * self._share))
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
