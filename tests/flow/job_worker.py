"""Run as a process that performs jobs and is to be killed: it dies at each moment that `moments` names, once, and each
time that a job says `{"poison": true}`. With the moment `again` another one is forked in the place of one that died.

What a job does is counted outside of the jobs' tables: an effect has the key of its item, as a tool call or a webhook
would have, and so can be had once however often it is tried.
"""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.jobs.webhook import WebhookJob
from app.outbound.signature import Secrets
from app.services.jobs import keeper
from app.services.jobs.ports import ItemEnd, JobKind, JobWork, Perform
from app.services.jobs.worker import Worker
from app.settings import quiet_libraries
from tests.outbound.recipe import NEW
from tests.outbound.servers import LOCAL
from tests.services.jobs.yard import Errand, open_yard

BEAT_S = 0.5


class Effects:
    """A file that every process writes to."""

    def __init__(self, home: Path) -> None:
        self._file = sqlite3.connect(home / "effects.db", timeout=60, isolation_level=None)
        self._file.execute("CREATE TABLE IF NOT EXISTS effects (job TEXT, item INT, by INT, UNIQUE (job, item))")
        self._file.execute("CREATE TABLE IF NOT EXISTS tries (job TEXT, item INT, by INT)")

    def have(self, job_id: str, number: int) -> None:
        self._file.execute("INSERT INTO tries VALUES (?, ?, ?)", (job_id, number, os.getpid()))
        self._file.execute("INSERT OR IGNORE INTO effects VALUES (?, ?, ?)", (job_id, number, os.getpid()))

    def rows(self, table: str) -> list[tuple[Any, ...]]:
        return self._file.execute(f"SELECT * FROM {table} ORDER BY job, item").fetchall()


async def main(home: Path, url: str, moments: set[str], *, beat_s: float = BEAT_S) -> None:
    effects = Effects(home)

    def die(moment: str) -> None:
        if moment in moments and not (gone := home / f"{moment}.died").exists():
            gone.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    async def does(work: JobWork) -> Mapping[str, Any]:
        if work.state.payload.get("poison"):
            os._exit(7)
        die("at the start")
        async for item in work.open_items():
            effects.have(work.state.job_id, item.number)
            if item.number == 2:
                die("after an effect")
            await asyncio.sleep(item.input.get("takes_s", 0))
            await work.settle([ItemEnd(item.number, {})])
            if item.number == 2:
                die("after a settlement")
        die("before the end")
        return {str(status): items for status, items in (await work.counts()).items()}

    def performs(worker: Worker) -> Perform:
        async def perform(job_id: str, attempt: int) -> None:
            await worker.perform(job_id, attempt)
            die("after the end")

        return perform

    kinds: list[JobKind] = [Errand(does), WebhookJob(LOCAL, Secrets.read(NEW))]
    async with open_yard(url, "dbos", home, kinds, performs=performs, beat_s=beat_s):
        print("up", flush=True)
        await asyncio.Event().wait()


def keep_up(home: Path, url: str, moments: set[str]) -> None:
    """As a supervisor of processes does; from one that has imported everything a start takes no second."""
    import dbos  # noqa: F401

    keeper.LOOK_AGAIN_S = 0.5  # type: ignore[misc]  # what the engine gave up is noticed at the next look
    while True:
        if (child := os.fork()) == 0:
            asyncio.run(main(home, url, moments, beat_s=0.2))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    quiet_libraries()
    if "again" in sys.argv[3:]:
        keep_up(Path(sys.argv[1]), sys.argv[2], set(sys.argv[3:]))
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], set(sys.argv[3:])))
