"""A loop that stands still is noticed: measured by itself, and seen from outside while it stands."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from app.telemetry.late import LoopWatch

LATE_S = 0.2


@asynccontextmanager
async def watched(told: list[float]) -> AsyncIterator[LoopWatch]:
    watch = LoopWatch(told.append, every_s=0.01, late_s=LATE_S)
    keeping = asyncio.create_task(watch.keep())
    async with asyncio.timeout(30):
        while not told:
            await asyncio.sleep(0.005)
    try:
        yield watch
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


def hold_the_loop(for_s: float) -> None:
    """What must not be done on a loop."""
    time.sleep(for_s)


async def test_k08_a_blocked_loop_is_measured_and_the_log_says_who_blocked_it(caplog: pytest.LogCaptureFixture) -> None:
    told: list[float] = []
    async with watched(told) as watch:
        hold_the_loop(LATE_S * 3)
        seen_while_it_stood = [line for line in caplog.records if line.message == "the event loop stands still"]
        await asyncio.sleep(0.05)
    (line,) = seen_while_it_stood
    assert any("test_late.py" in frame and "hold_the_loop" in frame for frame in vars(line)["stack"])
    assert max(told) > LATE_S
    assert watch.worst_ms > LATE_S * 1e3
    assert "the event loop stood still" in caplog.text


async def test_k08_the_thread_beside_it_cannot_hide_a_blocked_loop() -> None:
    told: list[float] = []
    async with watched(told):
        before = len(told)
        hold_the_loop(LATE_S * 2)
        assert len(told) == before  # nothing was measured in the loop's place
        await asyncio.sleep(0.05)
        assert max(told[before:]) > LATE_S


async def test_a_loop_that_only_works_is_not_alarmed_about(caplog: pytest.LogCaptureFixture) -> None:
    told: list[float] = []
    watch = LoopWatch(told.append, every_s=0.01, late_s=30)
    with caplog.at_level(logging.WARNING):
        keeping = asyncio.create_task(watch.keep())
        for _ in range(20):
            await asyncio.sleep(0.005)
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    assert not caplog.records
