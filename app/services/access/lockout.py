"""Slows guessing of keys: so many different wrong secrets in a minute, then a wait.

Counted in this process, for each peer address and beginning of the secret (for our keys: their id). Not counted: what
is too short to be any key, and the same wrong secret again, which is a client set up wrongly and not a guess.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from graphs.errors import QuotaExhausted

MAX_FAILURES: Final = 20
WINDOW_S: Final = 60.0
_SHORTEST_KEY: Final = 32
_PREFIX_CHARS: Final = 8
_MAX_SUSPECTS: Final = 10_000

Suspect = tuple[str, str]


class Lockout:
    """A limiter of failures; `clock` is monotonic seconds."""

    def __init__(
        self, max_failures: int = MAX_FAILURES, window_s: float = WINDOW_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_failures = max_failures
        self._window_s = window_s
        self._clock = clock
        # Digest of each wrong secret -> when it came, oldest first.
        self._failures: OrderedDict[Suspect, OrderedDict[bytes, float]] = OrderedDict()

    def check(self, secret: str, address: str) -> None:
        """Raises QuotaExhausted, with the seconds to wait, where too many guesses were wrong."""
        now = self._clock()
        failures = self._recent(_suspect(secret, address), now)
        if len(failures) >= self._max_failures:
            oldest = next(iter(failures.values()))
            raise QuotaExhausted("too many wrong keys", retry_after_s=max(1.0, oldest + self._window_s - now))

    def failed(self, secret: str, address: str) -> None:
        """Remember a wrong secret."""
        if len(secret) < _SHORTEST_KEY:
            return
        suspect, now = _suspect(secret, address), self._clock()
        failures = self._failures.setdefault(suspect, OrderedDict())
        self._failures.move_to_end(suspect)
        failures.setdefault(sha256(secret.encode("utf-8", "surrogatepass")).digest(), now)
        if len(self._failures) > _MAX_SUSPECTS:
            self._failures.popitem(last=False)

    def _recent(self, suspect: Suspect, now: float) -> OrderedDict[bytes, float]:
        failures = self._failures.get(suspect, OrderedDict())
        while failures and next(iter(failures.values())) <= now - self._window_s:
            failures.popitem(last=False)
        if not failures:
            self._failures.pop(suspect, None)
        return failures


def _suspect(secret: str, address: str) -> Suspect:
    ours = secret.split("_", 2)
    return (f"ph_{ours[1]}" if len(ours) == 3 and ours[0] == "ph" else secret[:_PREFIX_CHARS], address)
