"""How far a job's documents are, written down now and then while they are taken in."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from app.jobs.stages import Stages
from app.services.ingest.ingest import Progress
from graphs.errors import Conflict


class Noted:
    """A job in nobody's hands but ours; only notes are asked of it."""

    def __init__(self, error: Conflict | None = None) -> None:
        self.error, self.notes, self.written = error, list[Mapping[int, Any]](), asyncio.Event()

    async def note(self, notes: Mapping[int, Mapping[str, Any]], stage: str) -> None:
        self.notes.append({number: dict(told["tookMs"]) | {"at": stage} for number, told in notes.items()})
        self.written.set()
        if self.error is not None:
            raise self.error


async def test_reports_are_gathered_and_written_with_the_time_of_each_stage() -> None:
    work = Noted()
    async with Stages(work, {"a": 1, "b": 2}, every_s=0) as stages:  # type: ignore[arg-type]
        for report in (
            Progress("a", "parse", 0.25),
            Progress("a", "chunk", 0.5),
            Progress("b", None, happened="failed"),
        ):
            stages(report)
        await work.written.wait()
    assert work.notes == [{1: {"parse": 250.0, "chunk": 500.0, "at": "chunk"}}]
    assert (stages.of("a"), stages.of("b")) == ({"parse": 250.0, "chunk": 500.0}, {})


async def test_a_worker_that_was_overtaken_hears_of_it_from_its_notes() -> None:
    work = Noted(Conflict("not this worker's any more"))
    with pytest.raises(Conflict):
        async with Stages(work, {"a": 1}, every_s=0) as stages:  # type: ignore[arg-type]
            stages(Progress("a", "parse", 0.1))
            await work.written.wait()
