"""Jobs that come again: once a period, however many processes ask for them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import JobState, JobWork
from app.services.jobs.schedule import SYSTEM, Recurring, Schedule
from app.services.jobs.shelf import Shelf
from app.services.store.store import Store
from tests.services.jobs.yard import Errand

HOURLY = Recurring("errand", 3600)
NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)


async def never(_: JobWork) -> Mapping[str, Any]:
    raise AssertionError("nobody performs jobs here")


@dataclass
class Process:
    """One that asks for jobs by a clock of its own."""

    store: Store
    now: datetime = NOON

    @property
    def desk(self) -> JobDesk:
        return JobDesk(self.store.database, [Errand(never)])

    async def ask(self) -> bool:
        return await Schedule(self.desk, (HOURLY,), lambda: self.now).ask(HOURLY)

    async def jobs(self) -> list[JobState]:
        return (await self.desk.page(SYSTEM.tenant_id, None, 50, None))[0]

    async def finish(self) -> None:
        """As a worker would."""
        for job in await self.jobs():
            if (claim := await Shelf(self.store.database).claim(job.job_id, job.attempt)) is not None:
                await Shelf(self.store.database).end(claim, "succeeded")


@pytest.fixture(params=["sqlite", "postgresql"])
async def processes(
    request: pytest.FixtureRequest, tmp_path: Path, new_postgres_url: Callable[[], str]
) -> AsyncIterator[list[Process]]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}" if request.param == "sqlite" else new_postgres_url()
    async with AsyncExitStack() as stack:
        made = [Process(await Store.open(url)) for _ in range(3)]
        for process in made:
            stack.push_async_callback(process.store.close)
        yield made


async def test_k10_three_processes_ask_and_each_period_has_one_job(processes: list[Process]) -> None:
    for period in range(3):
        for process in processes:
            process.now = NOON + timedelta(hours=period)
        await asyncio.gather(*(process.ask() for process in processes))
        assert len(await processes[0].jobs()) == period + 1
        await processes[0].finish()
        await asyncio.gather(*(process.ask() for process in processes))
        assert len(await processes[0].jobs()) == period + 1


async def test_k12_a_clock_that_is_five_minutes_ahead_makes_no_second_job_of_a_period(
    processes: list[Process],
) -> None:
    ahead, right, behind = processes
    ahead.now, behind.now = NOON + timedelta(minutes=4), NOON - timedelta(minutes=1)
    for process in (ahead, right):
        await process.ask()
        await process.finish()
    assert await behind.ask()  # the period before, which nobody had asked for
    await behind.finish()
    behind.now = NOON
    await behind.ask()
    assert len(await right.jobs()) == 2


async def test_jobs_that_nobody_performs_do_not_pile_up(processes: list[Process]) -> None:
    process = processes[0]
    assert await process.ask()
    process.now += timedelta(hours=5)
    assert not await process.ask()
    await process.finish()
    assert await process.ask()
    assert len(await process.jobs()) == 2
