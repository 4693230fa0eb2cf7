"""Tells how far each document of an ingest is, while it is taken in: the stages it has passed and what they took.

Reports come by the hundred a second and each write is a transaction, so they are gathered and written now and then.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from app.services.ingest.ingest import Progress
from app.services.jobs.ports import JobWork

EVERY_S: Final = 0.5


class Stages:
    """Notes of the items in hand, by the documents' ids; open as long as they are taken in."""

    def __init__(self, work: JobWork, numbers: Mapping[str, int], every_s: float = EVERY_S) -> None:
        self._work, self._numbers, self._every_s = work, numbers, every_s
        self._took_ms: dict[str, dict[str, float]] = {document_id: {} for document_id in numbers}
        self._changed: set[str] = set()
        self._stage = ""

    def __call__(self, passed: Progress) -> None:
        if passed.stage is not None:
            self.passed(passed.document_id, passed.stage, passed.took_s)

    def passed(self, document_id: str, stage: str, took_s: float) -> None:
        took_ms = self._took_ms[document_id]
        took_ms[stage] = round(took_ms.get(stage, 0.0) + took_s * 1e3, 1)
        self._stage = stage
        self._changed.add(document_id)

    def of(self, document_id: str) -> Mapping[str, float]:
        """Milliseconds by stage."""
        return self._took_ms[document_id]

    async def __aenter__(self) -> Self:
        self._writing = asyncio.create_task(self._write(), name="stages of an ingest")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writing.cancel()
        with suppress(asyncio.CancelledError):
            await self._writing  # a write that failed is the job's failure, as any other

    async def _write(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            if self._changed:
                changed, self._changed = self._changed, set()
                notes: dict[int, dict[str, Any]] = {
                    self._numbers[document_id]: {"tookMs": self._took_ms[document_id]} for document_id in changed
                }
                await self._work.note(notes, self._stage)
