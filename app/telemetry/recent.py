"""What the last minutes say of each model: how many calls, how many failed, and how the last failure was called."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from app.telemetry.attempts import Attempted

WINDOW_S: Final = 300
BUCKETS: Final = 30
_BUCKET_S: Final = WINDOW_S // BUCKETS


@dataclass(frozen=True, slots=True)
class Vitals:
    """Of one model in the last WINDOW_S; the last failure may be older. Cancelled calls count for nothing.

    `first_token_ms` is the mean of the calls that were streamed; None where there was none.
    """

    calls: int = 0
    failures: int = 0
    first_token_ms: float | None = None
    last_error_code: str = ""
    last_error_at: datetime | None = None


@dataclass(slots=True)
class _Model:
    numbers: list[int] = field(default_factory=lambda: [-1] * BUCKETS)
    calls: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    failures: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    streamed: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    waited_ms: list[float] = field(default_factory=lambda: [0.0] * BUCKETS)
    last_error_code: str = ""
    last_error_at: datetime | None = None


class Recent:
    """The recent calls of this process by model."""

    def __init__(
        self,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._now, self._monotonic = now, monotonic
        self._models: dict[str, _Model] = {}

    def hear(self, attempt: Attempted) -> None:
        """Count an attempt that has ended."""
        outcome = attempt.bill.outcome
        if outcome not in {"ok", "failed"}:
            return
        name = attempt.target.name
        model = self._models.get(name)
        if model is None:
            model = self._models[name] = _Model()
        number = int(self._monotonic()) // _BUCKET_S
        place = number % BUCKETS
        if model.numbers[place] != number:
            model.numbers[place], model.calls[place], model.failures[place] = number, 0, 0
            model.streamed[place], model.waited_ms[place] = 0, 0.0
        model.calls[place] += 1
        if attempt.bill.first_token_ms is not None:
            model.streamed[place] += 1
            model.waited_ms[place] += attempt.bill.first_token_ms
        if outcome == "failed":
            model.failures[place] += 1
            model.last_error_code, model.last_error_at = attempt.bill.error_code, self._now()

    def of(self, name: str) -> Vitals:
        """What is known of the model; nothing of one that was never called."""
        model = self._models.get(name)
        if model is None:
            return Vitals()
        oldest = int(self._monotonic()) // _BUCKET_S - BUCKETS + 1
        places = [place for place, number in enumerate(model.numbers) if number >= oldest]
        streamed = sum(model.streamed[place] for place in places)
        return Vitals(
            calls=sum(model.calls[place] for place in places),
            failures=sum(model.failures[place] for place in places),
            first_token_ms=sum(model.waited_ms[place] for place in places) / streamed if streamed else None,
            last_error_code=model.last_error_code,
            last_error_at=model.last_error_at,
        )
