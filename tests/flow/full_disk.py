"""Run alone in a mount namespace of its own: jobs over a disk of a few megabytes, which fills up under them.

Prints as JSON what the store said while there was no room, and how the jobs ended once there was.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.services.jobs import dbos_engine, keeper
from app.services.jobs.ports import ItemEnd, JobItem, JobWork
from app.services.store.database import StoreUnavailable
from app.settings import quiet_libraries
from tests.services.jobs.yard import Errand, open_yard


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4_096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


async def main(disk: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    keeper.LOOK_AGAIN_S, dbos_engine.LET_GO_AFTER_S = 0.5, 1.0  # type: ignore[misc]
    full, done = asyncio.Event(), list[int]()

    async def does(work: JobWork) -> Mapping[str, Any]:
        async for item in work.open_items():
            if item.number == 2:
                await full.wait()
            await work.settle([ItemEnd(item.number, {"text": "y" * 20_000})])
            done.append(item.number)
        return {}

    async with open_yard(
        f"sqlite+aiosqlite:///{disk / 'pilothouse.db'}", "dbos", disk, [Errand(does)], beat_s=0.5
    ) as yard:
        job = await yard.submit(items=[JobItem(f"item {n}") for n in range(3)])
        await yard.until(job.job_id, lambda state: state.progress.done == 1)
        ballast = fill(disk)
        refused = ""
        try:
            for _ in range(50):
                await yard.submit(items=[JobItem("large", {}, b"z" * 100_000)])
        except StoreUnavailable as error:
            refused = error.code
        full.set()
        await asyncio.sleep(3)
        without_room = await yard.desk.state("acme", None, job.job_id)
        ballast.unlink()
        ended = await yard.ended(job.job_id)
        later = await yard.ended((await yard.submit()).job_id)
        told = {
            "refused": refused,
            "without room": [without_room.status, without_room.progress.done],
            "ended": [ended.status, ended.progress.done],
            "later": later.status,
            "done": done,
        }
    print(json.dumps(told))


if __name__ == "__main__":
    quiet_libraries()
    asyncio.run(main(Path(sys.argv[1])))
