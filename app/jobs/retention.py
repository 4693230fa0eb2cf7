"""Forgetting what was kept long enough, as a job: jobs that have ended, with their items and results, and whatever else
the file gives a time. A worker that dies leaves it to the next round, which goes on."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from app.records import Scope
from app.retention import Retention
from app.services.jobs.ports import JobProgress, JobWork
from graphs.errors import UpstreamError

RETENTION: Final = "retention"


class RetentionJob:
    """Takes no payload. `sweep` forgets jobs, and gives how many that were; set by who opens the engine."""

    name = RETENTION
    scope: Scope = "owner"

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self.sweep: Callable[[], Awaitable[int]] = _closed

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        async def told(done: int) -> None:
            await work.progress(JobProgress(done, 0, "forget"))

        async with work.alone(RETENTION):
            removed = await self._retention.sweep(told)
            return {"jobs": await self.sweep(), "removed": dict(removed)}


async def _closed() -> int:
    raise UpstreamError("the jobs' engine is not open here")
