"""Workers that are killed: each job is finished once, and each of its effects is had once."""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from app.services.jobs.callbacks import delivery_id
from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import JobItem, JobRequest, JobState
from app.services.store.store import Store
from tests.flow.job_worker import Effects
from tests.outbound.servers import answer, serving
from tests.services.jobs.yard import ANN, Errand

MOMENTS = ("at the start", "after an effect", "after a settlement", "before the end", "after the end")


async def start(home: Path, url: str, *moments: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.flow.job_worker", str(home), url, *moments), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await asyncio.wait_for(process.stdout.readline(), 100) == b"up\n"
    return process


@asynccontextmanager
async def succeeding(home: Path, url: str, *moments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Workers one after the other, each in the place of the one that died, by a process that says how that ended."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.flow.job_worker", str(home), url, "again", *moments),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def death(workers: asyncio.subprocess.Process) -> bytes:
    """The code with which the next of them ends."""
    assert workers.stdout is not None
    while (line := await asyncio.wait_for(workers.stdout.readline(), 100)) == b"up\n":
        pass
    return line


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[JobDesk]:
    """As an API process that performs no jobs does."""

    async def nothing(_: object) -> dict[str, object]:
        raise AssertionError("nobody performs jobs here")

    store = await Store.open(url)
    yield JobDesk(store.database, [Errand(nothing)], vet_callback=lambda _: None)
    await store.close()


async def until(desk: JobDesk, job_id: str, holds: Callable[[JobState], bool]) -> JobState:
    async with asyncio.timeout(100):
        while not holds(state := await desk.state("acme", None, job_id)):
            await asyncio.sleep(0.05)
    return state


async def test_k02_k03_a_job_whose_worker_is_killed_at_every_moment_is_finished_once(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}"
    async with asking(url) as desk, succeeding(tmp_path, url, *MOMENTS) as workers:
        job = await desk.submit(JobRequest(ANN, "errand", items=[JobItem(f"item {n}") for n in range(3)]))
        for moment in MOMENTS:
            assert await death(workers) == b"-9\n", moment
            assert (tmp_path / f"{moment}.died").exists()
        done = await until(desk, job.job_id, lambda state: state.ended_at is not None)
    assert (done.status, done.result, done.progress.done) == ("succeeded", {"succeeded": 3}, 3)
    effects = Effects(tmp_path)
    assert [row[:2] for row in effects.rows("effects")] == [(job.job_id, n) for n in (1, 2, 3)]
    # The one effect whose settlement was lost is tried again, under the same key; no settled item is.
    assert Counter(row[1] for row in effects.rows("tries")) == {1: 1, 2: 2, 3: 1}


async def test_k03_an_end_is_told_though_its_worker_is_killed_before_the_delivery(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}"
    async with asking(url) as desk, serving(lambda _: answer()) as told:
        job = await desk.submit(JobRequest(ANN, "errand", callback_url=told.url("/hook")))
        killed = await start(tmp_path, url, "after the end")
        assert await asyncio.wait_for(killed.wait(), 100) == -9
        ended = await desk.state("acme", None, job.job_id)
        assert (ended.status, ended.callback, told.requests) == ("succeeded", "waiting", [])
        living = await start(tmp_path, url)
        await until(desk, job.job_id, lambda state: state.callback == "delivered")
        living.kill()
        await living.wait()
    assert [told.header("webhook-id", at) for at in range(len(told.requests))] == [delivery_id(job.job_id)]


async def test_k03_of_two_workers_on_postgresql_the_living_one_finishes_what_the_dead_one_held(
    tmp_path: Path, new_postgres_url: Callable[[], str]
) -> None:
    url = new_postgres_url()
    async with asking(url) as desk:
        one, other = await asyncio.gather(start(tmp_path, url), start(tmp_path, url))
        items = [JobItem(f"item {n}", {"takes_s": 0.2}) for n in range(4)]
        jobs = [await desk.submit(JobRequest(ANN, "errand", items=items)) for _ in range(6)]
        await until(desk, jobs[0].job_id, lambda state: state.progress.done >= 1)
        effects = Effects(tmp_path)
        async with asyncio.timeout(60):
            while one.pid not in {row[2] for row in effects.rows("tries")}:
                await asyncio.sleep(0.02)
        one.kill()
        await one.wait()
        ended = [await until(desk, job.job_id, lambda state: state.ended_at is not None) for job in jobs]
        other.kill()
        await other.wait()
    assert {(state.status, state.progress.done) for state in ended} == {("succeeded", 4)}
    assert len(effects.rows("effects")) == 24
    # Of each job that the dead one held, one item at the most had its effect and not its settlement.
    assert len(effects.rows("tries")) - 24 <= 2
    assert {row[2] for row in effects.rows("tries")} == {one.pid, other.pid}
