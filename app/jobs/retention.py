"""Forgetting what was kept long enough, as a job: jobs that have ended, with their items and results."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from app.records import Scope
from app.services.jobs.ports import JobWork
from graphs.errors import UpstreamError

RETENTION: Final = "retention"


class RetentionJob:
    """Takes no payload. `sweep` forgets, and gives how many jobs that were; set by who opens the engine."""

    name = RETENTION
    scope: Scope = "owner"

    def __init__(self) -> None:
        self.sweep: Callable[[], Awaitable[int]] = _closed

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        async with work.alone(RETENTION):
            return {"jobs": await self.sweep()}


async def _closed() -> int:
    raise UpstreamError("the jobs' engine is not open here")
