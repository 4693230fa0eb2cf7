"""Sealing everything with the current key, as a job: a worker that dies leaves it to the next, which goes on."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from app.records import Scope
from app.resealing import Resealing
from app.services.jobs.ports import JobProgress, JobWork

RESEAL: Final = "reseal"


class ResealJob:
    """Takes no payload."""

    name = RESEAL
    scope: Scope = "owner"

    def __init__(self, resealing: Resealing) -> None:
        self._resealing = resealing

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        async def told(done: int, total: int) -> None:
            await work.progress(JobProgress(done, total, "seal"))

        async with work.alone(RESEAL):
            return asdict(await self._resealing.run(told))
