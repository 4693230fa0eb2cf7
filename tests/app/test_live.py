"""The event log of a run in flight."""

import asyncio

from app.live import LiveRun


async def collect(live: LiveRun, after: int = 0) -> list[int]:
    return [event.number async for event in live.read(after)]


async def test_readers_that_come_early_or_late_see_the_same_events() -> None:
    live = LiveRun("r")
    early = asyncio.create_task(collect(live))
    await asyncio.sleep(0)
    for number in range(5):
        live.emit("message.delta", {"text": str(number)})
        await asyncio.sleep(0)
    late = asyncio.create_task(collect(live))
    await asyncio.sleep(0)
    live.emit("run.completed", {})
    live.close()
    assert await early == await late == [1, 2, 3, 4, 5, 6]


async def test_a_reader_that_comes_back_misses_nothing_and_sees_nothing_twice() -> None:
    live = LiveRun("r", first_number=10)
    for _ in range(3):
        live.emit("message.delta", {"text": "x"})
    live.close()
    assert await collect(live, after=11) == [12]


async def test_the_last_reader_to_leave_is_noticed() -> None:
    live = LiveRun("r")
    reader = asyncio.create_task(collect(live))
    await live.attached.wait()
    assert not live.unread.is_set()
    reader.cancel()
    await live.unread.wait()
    assert not live.attached.is_set()
