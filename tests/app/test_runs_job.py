"""A batch of runs that is attempted again: what was answered is not asked twice, what died is."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from app.ids import new_id
from app.jobs.items import RUNS, run_item
from app.jobs.runs import RunsJob
from app.records import RunRequest
from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import JobRequest, JobState
from app.services.jobs.shelf import Shelf
from app.services.jobs.work import Work
from app.services.jobs.worker import Worker
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import PilothouseError, QuotaExhausted
from graphs.types import ModelRequest
from tests.app.lite import ANN, Lite, lite
from tests.services.jobs.yard import anybody


@dataclass
class Batch:
    """A batch of Ann's, and a worker that attempts it when told."""

    bench: Lite
    desk: JobDesk
    worker: Worker
    asked: list[str] = field(default_factory=list)

    async def submit(self, messages: Sequence[str]) -> str:
        items = [run_item(message, RunRequest(message, feature="batch")) for message in messages]
        return (await self.desk.submit(JobRequest(ANN, RUNS, items=items))).job_id

    async def attempt(self, job_id: str) -> JobState:
        state = await self.desk.state("acme", None, job_id)
        await self.worker.perform(job_id, state.attempt)
        return await self.desk.state("acme", None, job_id)


@pytest.fixture
async def batch(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Batch]:
    asked: list[str] = []

    def script(request: ModelRequest) -> str:
        asked.append(request.messages[-1].content)
        return f"To {asked[-1]}."

    async with opened(tmp_path, script, embedder, asked) as batch:
        yield batch


@asynccontextmanager
async def opened(home: Path, script: object, embedder: MiniLmEmbedder, asked: list[str]) -> AsyncIterator[Batch]:
    async with lite(home, script, embedder) as bench:  # type: ignore[arg-type]
        desk = JobDesk(bench.store.database, [RunsJob(bench.runner, anybody)])
        yield Batch(bench, desk, Worker(Shelf(bench.store.database), desk.kinds, anybody), asked)


async def test_a_line_whose_run_was_answered_before_the_crash_is_not_asked_again(batch: Batch) -> None:
    job_id = await batch.submit(["one", "two"])
    # What a worker leaves that is killed after the first line's run has ended and before that is settled.
    first = (await batch.desk.items(job_id, 1))[0]
    claim = await Shelf(batch.bench.store.database).claim(job_id, 0)
    assert claim is not None
    run_id = await batch.bench.runner.start(ANN, RunRequest(first.name))
    await batch.bench.runner.attend(ANN, run_id)
    await _begun(batch, claim.fence, job_id, run_id)

    done = await batch.attempt(job_id)
    assert (done.status, done.result) == ("succeeded", {"succeeded": 2, "failed": 0})
    assert batch.asked == ["one", "two"]
    items = await batch.desk.items(job_id, 10)
    assert items[0].ref == run_id
    assert [(await batch.bench.runner.card(ANN, item.ref or "")).answer for item in items] == ["To one.", "To two."]


async def test_a_line_whose_run_died_with_its_process_or_never_began_is_begun_anew(batch: Batch) -> None:
    job_id = await batch.submit(["one"])
    claim = await Shelf(batch.bench.store.database).claim(job_id, 0)
    assert claim is not None
    dead = new_id()
    await batch.bench.store.runs.start(
        run_id=dead,
        tenant_id="acme",
        user_id="ann",
        conversation_id=None,
        mode="chat",
        message="one",
        feature="batch",
        key_id="k1",
        created_at=batch.bench.store.database.clock(),
        process_id="a process that is dead",
    )
    await _begun(batch, claim.fence, job_id, dead)
    done = await batch.attempt(job_id)
    assert (done.status, done.result) == ("succeeded", {"succeeded": 1, "failed": 0})
    (item,) = await batch.desk.items(job_id, 10)
    assert item.ref != dead
    assert (await batch.bench.store.runs.load(dead)).status == "failed"


async def test_a_rate_limit_is_waited_out_and_a_spent_budget_fails_the_line(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals: list[PilothouseError] = [
        QuotaExhausted("a minute's requests are used", retry_after_s=0.01),
        QuotaExhausted("the month's budget is spent", retry_after_s=86_400),
    ]
    start = batch.bench.runner.start

    async def refuse(*args: Any, **options: Any) -> str:
        if refusals:
            raise refusals.pop(0)
        return await start(*args, **options)

    monkeypatch.setattr(batch.bench.runner, "start", refuse)
    job_id = await batch.submit(["one"])
    assert (await batch.attempt(job_id)).result == {"succeeded": 0, "failed": 1}
    (item,) = await batch.desk.items(job_id, 10)
    assert item.error is not None
    assert item.error.code == "quota_exhausted"
    assert refusals == []


async def _begun(batch: Batch, fence: int, job_id: str, run_id: str) -> None:
    state = await batch.desk.state("acme", None, job_id)
    await Work(batch.bench.store.database, state, fence).begin(1, run_id)
