"""Batches a stream in time, so that a fast model does not redraw the page for every token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, TypeVar

T = TypeVar("T")
FRAME_S: Final = 0.06  # about 16 redraws a second: reads as flowing, and leaves the loop to others


async def paced(items: AsyncIterator[T], frame_s: float = FRAME_S) -> AsyncGenerator[list[T], None]:
    """What arrived within a frame, in order and never empty; the first item comes at once.

    An error of `items` is raised after what came before it.
    """
    waiting: asyncio.Queue[T | None] = asyncio.Queue()

    async def pump() -> None:
        try:
            async for item in items:
                waiting.put_nowait(item)
        finally:
            waiting.put_nowait(None)

    task = asyncio.create_task(pump())
    try:
        open_ = True
        while open_:
            batch = [await waiting.get()]
            while not waiting.empty():
                batch.append(waiting.get_nowait())
            open_ = None not in batch
            arrived = [item for item in batch if item is not None]
            if arrived:
                yield arrived
            if open_:
                await asyncio.sleep(frame_s)
        await task
    finally:
        task.cancel()
        await asyncio.wait({task})
