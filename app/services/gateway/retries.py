"""How many retries there may be in all: a storm of them is what makes a short failure a long one."""


class RetryBudget:
    """How many retries a server may make: a share of its calls, and a few a minute in any case."""

    def __init__(self, share: float, floor_a_minute: int) -> None:
        self._share, self._per_s = share, floor_a_minute / 60
        # What calls earn may pile up to that of a thousand calls at a share of a tenth: a short burst of failures.
        self._most = max(float(floor_a_minute), 1_000 * share)
        self._left = float(floor_a_minute)
        self._at: float | None = None

    def note_call(self) -> None:
        """A first attempt was made: it earns a share of a retry."""
        self._left = min(self._left + self._share, self._most)

    def take(self, now: float) -> bool:
        """Whether one more retry is allowed; it is taken then."""
        if self._at is not None:
            self._left = min(self._left + max(0.0, now - self._at) * self._per_s, self._most)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
