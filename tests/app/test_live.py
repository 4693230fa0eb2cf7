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
    began = live.unread_since
    reader, listener = asyncio.create_task(collect(live)), asyncio.create_task(live.attend())
    await asyncio.sleep(0)
    assert (live.readers, live.unread_since) == (2, began)
    for task in (reader, listener):
        task.cancel()
        await asyncio.wait({task})
    assert live.readers == 0
    assert live.unread_since > began


async def test_who_attends_a_run_hears_only_of_its_end() -> None:
    live = LiveRun("r")
    listener = asyncio.create_task(live.attend())
    live.emit("message.delta", {"text": "x"})
    live.emit("run.completed", {})
    await asyncio.sleep(0)
    assert not listener.done()
    live.close()
    await listener
    await live.attend()
