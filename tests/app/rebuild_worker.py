"""Run as a process that performs one rebuild and is killed on the way: while it builds, or once it has promoted."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from app.builds import Builds
from app.jobs.collections import RebuildJob
from app.services.jobs.ports import JobProgress
from app.services.jobs.shelf import Shelf
from app.services.jobs.work import Work
from app.services.retrieval.embedder import MiniLmEmbedder
from tests.app.yard import open_yard


class Dying(Work):
    async def progress(self, progress: JobProgress) -> None:
        await super().progress(progress)
        if sys.argv[3] == "building" and progress.stage == "build":
            os.kill(os.getpid(), signal.SIGKILL)


async def die(_: str) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(home: Path, job_id: str) -> None:
    async with open_yard(home, MiniLmEmbedder()) as yard:
        claim = await Shelf(yard.store.database).claim(job_id, 0)
        assert claim is not None
        builds = Builds(yard.library, yard.store.documents, yard.golden, die)
        await RebuildJob(builds).perform(Dying(yard.store.database, claim.state, claim.fence))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
