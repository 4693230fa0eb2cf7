"""What the last minutes say of a model."""

from datetime import UTC, datetime, timedelta

from app.telemetry.recent import WINDOW_S, Recent, Vitals
from tests.telemetry.test_metrics import ended

START = datetime(2026, 11, 24, 17, tzinfo=UTC)


class Clock:
    """Both clocks, moved together."""

    def __init__(self) -> None:
        self.passed_s = 1_000.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.passed_s)

    def monotonic(self) -> float:
        return self.passed_s


def test_calls_and_failures_are_those_of_the_window() -> None:
    clock = Clock()
    recent = Recent(now=clock.now, monotonic=clock.monotonic)
    recent.hear(ended())
    recent.hear(ended(outcome="failed", code="upstream_timeout"))
    failed_at = clock.now()
    assert recent.of("big") == Vitals(2, 1, 50.0, "upstream_timeout", failed_at)
    clock.passed_s += WINDOW_S / 2
    recent.hear(ended())
    assert recent.of("big").calls == 3
    clock.passed_s += WINDOW_S / 2 + 10
    assert recent.of("big") == Vitals(1, 0, 50.0, "upstream_timeout", failed_at)
    clock.passed_s += WINDOW_S * 10
    assert recent.of("big").calls == 0


def test_who_went_away_and_what_was_cached_say_nothing_of_a_model() -> None:
    recent = Recent()
    recent.hear(ended(outcome="cancelled", code="cancelled"))
    recent.hear(ended(outcome="cached"))
    assert recent.of("big") == recent.of("never called") == Vitals()
