"""Rebuild, optimize and retention as jobs over a real index: progress, one at a collection, cancelled, killed."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.checkpoints import checkpointer
from app.config.retention import RetentionConfig
from app.jobs.collections import OptimizeJob, RebuildJob
from app.jobs.retention import RetentionJob
from app.records import Principal
from app.retention import Retention
from app.services.ingest.ingest import Source
from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import JobProgress, JobRequest, JobState
from app.services.jobs.schedule import SYSTEM
from app.services.jobs.shelf import Shelf
from app.services.jobs.work import Work
from app.services.jobs.worker import Worker
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.gate import Thresholds
from app.services.retrieval.place import Place
from app.services.retrieval.recipe import Recipe
from app.services.store.tables import tickets
from app.services.tables.shelf import TableShelf
from app.traces import Traces
from app.withdrawal import Withdrawal
from graphs.errors import Forbidden
from tests.app.yard import CollectionYard, open_yard

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
ADA = Principal("acme", "ada", frozenset({"documents"}), "")
NOTES = Place("acme", "notes")
LOOSE = asdict(Thresholds(min_questions=0, max_size_ratio=1_000, latency_slack_ms=60_000, max_latency_ratio=1_000))
REBUILD = {"collection": "notes", "chunker": "sentences 20 0", "embedder": None, "keep": False, "bounds": LOOSE}


async def anybody(principal: Principal) -> Principal:
    return principal


@dataclass
class Process:
    yard: CollectionYard
    desk: JobDesk
    worker: Worker

    async def submit(self, kind: str, payload: Mapping[str, Any], who: Principal = ADA) -> JobState:
        return await self.desk.submit(JobRequest(who, kind, payload))

    async def done(self, job: JobState) -> JobState:
        await self.worker.perform(job.job_id, job.attempt)
        return await self.desk.state(job.principal.tenant_id, None, job.job_id)


@pytest.fixture
async def process(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Process]:
    async with open_yard(tmp_path, embedder) as yard, checkpointer("sqlite://", tmp_path / "checkpoints.db") as saver:
        withdrawal = Withdrawal(
            yard.store, yard.ingest, yard.golden, yard.maintenance, TableShelf(tmp_path / "tables"), yard.gateway.forget
        )
        retention = Retention(yard.store, saver, Traces(""), withdrawal, RetentionConfig(tickets_days=1))
        kinds = (RebuildJob(yard.builds), OptimizeJob(yard.maintenance, yard.library), RetentionJob(retention))
        desk = JobDesk(yard.store.database, kinds)
        sources = [
            Source(f"d{n}", f"Key {n} opens the door. It is kept in room {n}. Ask for it there.") for n in range(6)
        ]
        await yard.ingest.add_batch("acme", "notes", sources)
        yield Process(yard, desk, Worker(Shelf(yard.store.database), desk.kinds, anybody))


async def promotions(process: Process) -> int:
    return sum(event.happening == "promoted" for event in await process.yard.library.shelf.events(NOTES))


async def test_a_rebuild_is_a_job_that_says_how_far_it_is(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    told, real = [], Work.progress

    async def progress(work: Work, progress: JobProgress) -> None:
        told.append((progress.done, progress.total, progress.stage))
        await real(work, progress)

    monkeypatch.setattr(Work, "progress", progress)
    job = await process.done(await process.submit("rebuild", REBUILD))
    assert (job.status, job.error) == ("succeeded", None)
    assert job.result is not None
    assert job.result["promoted"]
    assert job.result["indexVersion"].startswith("notes@")
    assert told == [(0, 6, "build"), (6, 6, "judge")]
    assert await process.yard.library.recipe("acme", "notes") == Recipe(chunker="sentences 20 0")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["building", "promoted"])
async def test_k03_a_rebuild_whose_worker_is_killed_is_done_once(process: Process, tmp_path: Path, moment: str) -> None:
    job = await process.submit("rebuild", REBUILD)
    command = [sys.executable, "-m", "tests.app.rebuild_worker", str(tmp_path), job.job_id, moment]
    killed = await asyncio.create_subprocess_exec(*command)
    assert await killed.wait() == -signal.SIGKILL
    assert await promotions(process) == (moment == "promoted")
    done = await process.done(job)
    assert (done.status, done.result and done.result["promoted"]) == ("succeeded", True)
    assert await promotions(process) == 1
    assert process.yard.forgotten == ["acme"]
    await process.yard.builds.roll_back("acme", "notes")
    assert await process.yard.library.recipe("acme", "notes") == Recipe()


async def test_d12_no_two_jobs_are_at_one_collection(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    building, go_on = asyncio.Event(), asyncio.Event()
    real = process.yard.builds.rebuild

    async def slow(*given: Any, **named: Any) -> Any:
        building.set()
        await go_on.wait()
        return await real(*given, **named)

    monkeypatch.setattr(process.yard.builds, "rebuild", slow)
    first = asyncio.create_task(process.done(await process.submit("rebuild", REBUILD)))
    await building.wait()
    second = asyncio.create_task(process.done(await process.submit("optimize", {"collection": "notes"})))
    went_by = await process.done(await process.submit("optimize", {}, SYSTEM))
    assert went_by.result == {"collections": 0}  # a round does not wait for one that somebody has
    assert not second.done()
    go_on.set()
    assert [(await each).status for each in (first, second)] == ["succeeded", "succeeded"]
    assert (await process.done(await process.submit("optimize", {}, SYSTEM))).result == {"collections": 1}


async def test_a_rebuild_that_is_cancelled_leaves_the_collection_as_it_was(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, real = asyncio.Event(), Work.progress

    async def progress(work: Work, progress: JobProgress) -> None:
        await real(work, progress)
        begun.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(Work, "progress", progress)
    before = await process.yard.library.version("acme", "notes")
    job = await process.submit("rebuild", REBUILD)
    doing = asyncio.create_task(process.done(job))
    await begun.wait()
    await process.desk.cancel("acme", "ada", job.job_id)
    await process.worker.call_off()
    assert (await doing).status == "cancelled"
    assert await process.yard.library.version("acme", "notes") == before
    monkeypatch.setattr(Work, "progress", real)
    assert (await process.done(await process.submit("rebuild", REBUILD))).status == "succeeded"


async def test_a_job_needs_the_right_of_its_kind(process: Process) -> None:
    reader = Principal("acme", "ann", frozenset({"chat"}))
    for kind in ("rebuild", "optimize", "retention"):
        with pytest.raises(Forbidden):
            await process.submit(kind, {"collection": "notes"}, reader)
    with pytest.raises(Forbidden):
        await process.submit("retention", {})
    everyones = await process.done(await process.submit("optimize", {}))  # as no door lets anybody ask
    assert (everyones.status, everyones.error and everyones.error.code) == ("failed", "forbidden")


async def test_retention_forgets_by_the_engine_of_its_worker(process: Process) -> None:
    old = {"ticket_id": "t", "run_id": "r", "idempotency_key": "k", "title": "", "body": "", "created_at": LONG_AGO}
    async with process.yard.store.database.write() as connection:
        await connection.execute(tickets.insert().values(tenant_id="acme", user_id="ada", **old))
    job = await process.submit("retention", {}, SYSTEM)
    kind = process.desk.kinds["retention"]
    assert isinstance(kind, RetentionJob)

    async def sweep() -> int:
        return 7

    kind.sweep = sweep
    done = await process.done(job)
    assert done.result == {"jobs": 7, "removed": {"tickets": 1}}
    assert (done.progress.done, done.progress.stage) == (1, "")


async def test_a_collection_that_is_not_there_fails_its_job(process: Process) -> None:
    for kind, payload in (("rebuild", REBUILD | {"collection": "x"}), ("optimize", {"collection": "x"})):
        job = await process.done(await process.submit(kind, payload))
        assert (job.status, job.error and job.error.code) == ("failed", "not_found")
