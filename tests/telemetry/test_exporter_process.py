"""The real exporter, in its own process, against a real store and MLflow's own schema."""

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.records import AnswerCard, RunStatus
from app.services.store.store import Store
from app.telemetry.exporter_process import exporter_process
from app.telemetry.mlflow_trace import trace_id
from app.telemetry.spans import RunTrace

RUNS = 300


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(url(tmp_path))
    yield store
    await store.close()


def url(home: Path) -> str:
    return f"sqlite+aiosqlite:///{home / 'pilothouse.db'}"


async def ended_run(store: Store, status: RunStatus = "completed") -> str:
    run_id, now = uuid4().hex, datetime.now(UTC)
    trace = RunTrace(run_id)
    spoken = {"model": "smollm2", "input_tokens": 7, "output_tokens": 3}
    with trace.root("rag"), trace.span("complete", "station"), trace.span("smollm2", "model", **spoken):
        pass
    await store.runs.start(run_id, "acme", "ada", None, "rag", "Wie geht das? 你好", "test", "key", now)
    card = AnswerCard(
        request_id=run_id, conversation_id="", mode="rag", status=status, answer="So.", model="smollm2", created_at=now
    )
    await store.runs.finish(run_id, "acme", card, (), trace.records, ())
    return run_id


async def until(holds: Callable[[], Any], timeout_s: float = 110.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not await holds():
            await asyncio.sleep(0.02)


def rows(database: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.timeout(400)  # importing MLflow three times over takes most of it where cores are shared
async def test_an_exporter_killed_in_mid_drain_loses_no_trace_and_doubles_none(store: Store, tmp_path: Path) -> None:
    made = {await ended_run(store, "failed" if number == 0 else "completed") for number in range(RUNS)}
    database = tmp_path / "mlflow.db"

    async def moved() -> bool:
        return await store.runs.backlog() < left

    async def drained() -> bool:
        return await store.runs.backlog() == 0

    async with exporter_process(url(tmp_path), f"sqlite:///{database}", tmp_path / "artifacts") as exporter:
        for pause_s in (0.0, 0.1):
            left = await store.runs.backlog()
            await until(moved)
            await asyncio.sleep(pause_s)  # once between two batches, once within one
            assert exporter.pid is not None
            os.kill(exporter.pid, signal.SIGKILL)
        await until(drained)

    traces = rows(
        database, "select request_id, status, request_preview, response_preview, total_tokens from trace_info"
    )
    assert sorted(row[0] for row in traces) == sorted(trace_id(run_id) for run_id in made)
    assert sorted(row[1] for row in traces) == ["ERROR"] + ["OK"] * (RUNS - 1)
    assert {row[2:] for row in traces} == {("Wie geht das? 你好", "So.", 10)}
    assert rows(database, "select count(*), count(distinct span_id) from spans") == [(3 * RUNS, 3 * RUNS)]
    assert rows(database, "select distinct value from trace_tags where key = 'tenant'") == [("acme",)]
    exported = await store.runs.list("acme", None, limit=1)
    assert exported.items[0].trace_id == trace_id(exported.items[0].run_id)


async def test_a_thumb_becomes_an_assessment_of_the_trace_and_a_later_one_takes_its_place(
    store: Store, tmp_path: Path
) -> None:
    run_id = await ended_run(store)
    database = tmp_path / "mlflow.db"

    async def drained() -> bool:
        return await store.runs.backlog() == 0

    async with exporter_process(url(tmp_path), f"sqlite:///{database}", tmp_path / "artifacts"):
        await until(drained)
        for user, rating, comment in (("ada", "up", ""), ("bob", "down", "wrong page"), ("ada", "down", "not so")):
            await store.feedback.put(run_id, "acme", user, rating, comment)
            await until(drained)

    kept = "select trace_id, name, value, rationale, source_type, source_id from assessments where valid order by 6"
    thumb = (trace_id(run_id), "thumbs_up", "false")
    assert rows(database, kept) == [(*thumb, "not so", "HUMAN", "ada"), (*thumb, "wrong page", "HUMAN", "bob")]
    assert rows(database, "select count(*) from trace_info") == [(1,)]


CHILD = "import os, sys; print(sys.stdin.readline(), os.getpid(), flush=True, file=open(sys.argv[1], 'a')); "


async def test_a_child_that_dies_is_started_again_with_the_same_orders(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    command = (sys.executable, "-c", CHILD + "os._exit(3)", str(seen))

    async def twice() -> bool:
        return seen.exists() and seen.read_text().count("store-url") == 2

    async with exporter_process("store-url", "tracking", tmp_path, command=command):
        await until(twice)


async def test_the_child_ends_with_the_block(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    command = (sys.executable, "-c", CHILD + "sys.stdin.read()", str(seen))

    async def started() -> bool:
        return seen.exists() and bool(seen.read_text())

    async with exporter_process("store-url", "tracking", tmp_path, command=command) as exporter:
        await until(started)
        pid = exporter.pid
    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


PARENT = """
import asyncio, sys
from pathlib import Path
from app.telemetry.exporter_process import exporter_process

async def main():
    async with exporter_process(sys.argv[1], sys.argv[2], Path(sys.argv[3])) as exporter:
        while exporter.pid is None:
            await asyncio.sleep(0.01)
        print(exporter.pid, flush=True)
        await asyncio.sleep(3600)

asyncio.run(main())
"""


async def test_the_exporter_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    arguments = (url(tmp_path), f"sqlite:///{tmp_path / 'mlflow.db'}", str(tmp_path / "artifacts"))
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.kill()
    await parent.wait()

    async def gone() -> bool:
        return not alive(pid)

    await until(gone)


def alive(pid: int) -> bool:
    """Running, and not an ended child that nobody has waited for."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def test_mlflow_is_never_imported_beside_the_api(tmp_path: Path) -> None:
    code = "import sys, app.telemetry.exporter_process, app.telemetry.outbox, app.telemetry.logs, app.telemetry.spans"
    check = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"{code}; sys.exit('mlflow' in sys.modules or 'langgraph' in sys.modules)"
    )
    assert await check.wait() == 0
