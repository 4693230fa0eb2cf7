"""What we rely on of DBOS that it does not promise, and what we keep out of its way."""

import asyncio
import base64
import json
import logging
import pickle
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from app.services.jobs.dbos_engine import APPLICATION_VERSION, DbosEngine
from app.services.jobs.dbos_quiet import SeldomFilter
from app.services.jobs.ports import Ticket

TICKETS = [Ticket(f"{n:032x}", 0, "acme", 100) for n in range(4)]


async def opened(home: Path, name: str, perform: Callable[[str, int], Awaitable[None]]) -> DbosEngine:
    return await DbosEngine.open(f"sqlite:///{home / 'jobs.db'}", name, perform, poll_s=0.1)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(60):
        while not await holds():
            await asyncio.sleep(0.05)


async def test_l04_what_another_process_queued_and_held_is_performed_by_the_next(tmp_path: Path) -> None:
    """Pins the fixed application version, `_recover_pending_workflows` with its look at the executor, the state in
    which a process that ends leaves what it holds, and what of a ticket is in the file."""
    held: list[str] = []
    done: list[str] = []

    async def hold(job_id: str, _: int) -> None:
        held.append(job_id)
        await asyncio.Event().wait()

    async def do(job_id: str, _: int) -> None:
        done.append(job_id)

    async def are_held() -> bool:
        return len(held) == 2

    async def are_done() -> bool:
        return len(done) == len(TICKETS)

    first = await opened(tmp_path, "first", hold)
    await first.carry(TICKETS)
    await until(are_held)
    assert await first.holders() == {"first"}
    assert await first.look(TICKETS) == ["carried"] * 4
    await first.close()

    with sqlite3.connect(tmp_path / "jobs.db") as file:
        assert file.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        rows = file.execute(
            "SELECT status, executor_id, application_version, serialization, workflow_input.inputs"
            " FROM workflow_status JOIN workflow_input USING (workflow_uuid) ORDER BY status"
        ).fetchall()
    assert [row[0] for row in rows] == ["ENQUEUED", "ENQUEUED", "PENDING", "PENDING"]
    assert {row[2:4] for row in rows} == {(APPLICATION_VERSION, "portable_json")}
    assert {json.loads(row[4])["positionalArgs"][0] for row in rows} == {ticket.job_id for ticket in TICKETS}

    second = await opened(tmp_path, "second", do)
    assert await second.holders() >= {"first"}
    assert await second.recover("nobody") == 0
    assert await second.recover("first") == 2
    assert await second.recover("first") == 0
    await until(are_done)
    assert sorted(done) == sorted(ticket.job_id for ticket in TICKETS)
    await second.close()


async def test_an_engine_that_is_left_while_it_opens_performs_for_nobody(tmp_path: Path) -> None:
    async def perform(_: str, __: int) -> None:
        raise AssertionError("nobody asked")

    opening = asyncio.create_task(opened(tmp_path, "left", perform))
    await asyncio.sleep(0.01)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    second = await opened(tmp_path, "second", perform)
    with pytest.raises(RuntimeError, match="only one"):
        await opened(tmp_path, "third", perform)
    await second.close()


async def test_an_engine_whose_database_is_away_is_opened_when_it_is_back(tmp_path: Path) -> None:
    done: list[str] = []

    async def perform(job_id: str, _: int) -> None:
        done.append(job_id)

    (tmp_path / "jobs.db").mkdir()
    with pytest.raises(sqlite3.OperationalError):
        await opened(tmp_path, "first", perform)
    (tmp_path / "jobs.db").rmdir()
    engine = await opened(tmp_path, "first", perform)
    await engine.carry(TICKETS[:1])

    async def is_done() -> bool:
        return done == [TICKETS[0].job_id]

    await until(is_done)
    await engine.close()


async def test_d06_a_forged_row_that_says_it_is_pickled_is_not_unpickled(tmp_path: Path) -> None:
    performed: list[str] = []

    async def perform(job_id: str, _: int) -> None:
        performed.append(job_id)

    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    forged = base64.b64encode(pickle.dumps({"args": (Bomb(), 0), "kwargs": {}})).decode()
    assert not (tmp_path / "exploded").exists()

    # The tenant's two places are taken, so that there is time to forge what waits.
    gate = asyncio.Event()

    async def wait(job_id: str, attempt: int) -> None:
        await gate.wait()
        await perform(job_id, attempt)

    engine = await opened(tmp_path, "only", wait)
    await engine.carry(TICKETS[:2])
    await until(lambda: _holds_two(tmp_path))
    await engine.carry(TICKETS[2:3])
    with sqlite3.connect(tmp_path / "jobs.db", timeout=30) as file:
        mine = f"{TICKETS[2].job_id}.0"
        for change, value in (
            ("workflow_status SET serialization", "py_pickle"),
            ("workflow_input SET inputs", forged),
        ):
            changed = file.execute(f"UPDATE {change} = ? WHERE workflow_uuid = ?", (value, mine))
            assert changed.rowcount == 1
    gate.set()
    await asyncio.sleep(0)
    await engine.carry(TICKETS[3:4])

    async def last_done() -> bool:
        return TICKETS[3].job_id in performed

    await until(last_done)
    assert not (tmp_path / "exploded").exists()
    assert TICKETS[2].job_id not in performed
    await engine.close()


async def _holds_two(home: Path) -> bool:
    with sqlite3.connect(home / "jobs.db", timeout=30) as file:
        query = "SELECT count(*) FROM workflow_status WHERE status = 'PENDING'"
        return bool(file.execute(query).fetchone() == (2,))


@pytest.mark.parametrize("again_after_s", [1.0, 31.0])
def test_a_log_line_that_repeats_itself_is_let_through_once_in_a_while(again_after_s: float) -> None:
    now = 0.0
    seldom = SeldomFilter(monotonic=lambda: now)

    def line(text: str) -> logging.LogRecord:
        return logging.LogRecord("dbos", logging.WARNING, "queue.py", 7, text, None, None)

    assert seldom.filter(line("the database is away"))
    now += again_after_s
    assert seldom.filter(line("the database is away")) is (again_after_s > 30)
    long = line("x" * 10_000)
    long.lineno = 8
    assert seldom.filter(long)
    assert len(long.getMessage()) == 500
