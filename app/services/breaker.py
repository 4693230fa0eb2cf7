"""When a model or a tool is left alone for a while: a circuit breaker with half-open probes, and cool-downs.

One for each. Counts the calls of a sliding window; opens when too many of them failed or were slow; after a pause lets
at most `probes` calls through, and one that succeeds closes it. Cancelled calls count for nothing. Never blocks, never
counts time by itself: `now` is monotonic seconds and is given.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

State = Literal["closed", "open", "half_open"]
Cause = Literal["failures", "slow_calls", "credential", "recovered"]

BUCKETS: Final = 30
PROBE_DEADLINE_S: Final = 30.0  # a probe that has not come back by then has lost its place
_LONGEST_DOUBLING: Final = 16


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
        self.begin(-1)

    def begin(self, number: int) -> None:
        self.number, self.calls, self.failed, self.slow = number, 0, 0, 0


class Breaker:
    """The breaker of one model or tool. `admit` before a call; then exactly one of `succeed`, `fail`, `abandon`,
    `cool_down`, `trip` with the ticket it gave.

    `on_change` hears of every opening and of the closing, with the cause.
    """

    def __init__(
        self,
        policy: BreakerPolicy,
        *,
        jitter: Callable[[], float] = random.random,
        on_change: Callable[[State, Cause], None] | None = None,
    ) -> None:
        self._policy, self._jitter, self.on_change = policy, jitter, on_change
        self._buckets = [_Bucket() for _ in range(BUCKETS)]
        self._buckets_a_second = BUCKETS / policy.window_s
        self._open_until = self._cool_until = self._advised_until = 0.0
        self._rest_until = 0.0  # the latest of the three
        self._opened = 0  # times in a row; above 0 means that only probes go
        self._probes: dict[int, float] = {}
        self._next_probe = 1

    def state(self, now: float) -> State:
        if now < self._open_until or now < self._advised_until:
            return "open"
        return "half_open" if self._opened else "closed"

    def wait_s(self, now: float) -> float:
        """Seconds until a call may be tried; 0 where it may be now, or as soon as a probe is back."""
        return max(0.0, self._rest_until - now)

    def own_rest_s(self, now: float) -> tuple[float, float]:
        """How long it still rests by what this process saw itself: open, and cooling down. For others to hear."""
        return max(0.0, self._open_until - now), max(0.0, self._cool_until - now)

    def admit(self, now: float) -> int | None:
        """A ticket: 0 for an ordinary call, a number for a probe; None where none may go."""
        if now < self._rest_until:
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
        """The call went well; slowly perhaps, counted to its first token."""
        slow = self._policy.slow_call_s is not None and took_s > self._policy.slow_call_s
        if self._is_probe(ticket):
            if slow:
                self._open(now, "slow_calls")
            else:
                self._close()
            return
        bucket = self._bucket(now)
        bucket.calls += 1
        if slow:
            bucket.slow += 1
            self._judge(now)

    def fail(self, ticket: int, now: float) -> None:
        """The model or its server failed."""
        if self._is_probe(ticket):
            self._open(now, "failures")
            return
        bucket = self._bucket(now)
        bucket.calls += 1
        bucket.failed += 1
        self._judge(now)

    def trip(self, ticket: int, now: float) -> None:
        """Open at once and for as long as it goes: one answer was enough to know that the credential is refused."""
        self.abandon(ticket)
        self._opened = max(self._opened, _LONGEST_DOUBLING)
        self._open(now, "credential")

    def abandon(self, ticket: int) -> None:
        """The call ended for a reason that says nothing of the model: it was cancelled, or was itself wrong."""
        self._probes.pop(ticket, None)

    def cool_down(self, ticket: int, now: float, wait_s: float) -> None:
        """The server asked to be left alone for so long. No failure of its own."""
        self.abandon(ticket)
        self._cool_until = max(self._cool_until, now + wait_s)
        self._rest()

    def advise(self, now: float, *, open_s: float, cool_s: float) -> None:
        """Take another process's word for how long to rest; zeros take it back.

        Advice only: a success that this process has just seen counts more, and after an opening it makes its own probe.
        """
        open_s = min(open_s, self._policy.max_open_s)
        if self._succeeded_lately(now):
            open_s = 0.0
        self._advised_until = now + open_s if open_s > 0 else 0.0
        if open_s > 0:
            self._opened = max(self._opened, 1)
        if cool_s > 0:
            self._advised_until = max(self._advised_until, now + cool_s)
        self._rest()

    def _is_probe(self, ticket: int) -> bool:
        """Whether the ticket is a probe's that still has its place; a late one counts as an ordinary call."""
        return bool(ticket) and self._probes.pop(ticket, None) is not None

    def _rest(self) -> None:
        self._rest_until = max(self._open_until, self._cool_until, self._advised_until)

    def _bucket(self, now: float) -> _Bucket:
        number = int(now * self._buckets_a_second)
        bucket = self._buckets[number % BUCKETS]
        if bucket.number != number:
            bucket.begin(number)
        return bucket

    def _succeeded_lately(self, now: float) -> bool:
        bucket = self._bucket(now)
        return bucket.calls > bucket.failed

    def _judge(self, now: float) -> None:
        if self._opened:
            return
        oldest = int(now * self._buckets_a_second) - BUCKETS + 1
        calls = failed = slow = 0
        for bucket in self._buckets:
            if bucket.number >= oldest:
                calls, failed, slow = calls + bucket.calls, failed + bucket.failed, slow + bucket.slow
        if calls < self._policy.min_calls:
            return
        if failed and failed >= self._policy.failure_rate * calls:
            self._open(now, "failures")
        elif slow and slow >= self._policy.slow_rate * calls:
            self._open(now, "slow_calls")

    def _open(self, now: float, cause: Cause) -> None:
        """Longer each time in a row, with up to a fifth on top so that processes do not probe in step."""
        pause = min(self._policy.open_s * 2 ** min(self._opened, _LONGEST_DOUBLING), self._policy.max_open_s)
        self._opened += 1
        self._open_until = now + pause * (1 + 0.2 * self._jitter())
        self._rest()
        self._probes.clear()
        if self.on_change is not None:
            self.on_change("open", cause)

    def _close(self) -> None:
        """The server works again. A cool-down that it asked for goes on."""
        self._opened, self._open_until, self._advised_until = 0, 0.0, 0.0
        self._rest()
        self._probes.clear()
        for bucket in self._buckets:
            bucket.begin(-1)
        if self.on_change is not None:
            self.on_change("closed", "recovered")
