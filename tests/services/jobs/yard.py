"""Everything that performs jobs over a database of its own, and kinds of jobs that do as they are told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.records import Principal, Scope
from app.services.jobs.dbos_engine import DbosEngine
from app.services.jobs.desk import JobDesk
from app.services.jobs.executors import BEAT_S, Executors, new_executor_id
from app.services.jobs.keeper import Keeper
from app.services.jobs.ports import JobKind, JobRequest, JobState, JobWork, Perform
from app.services.jobs.shelf import Shelf
from app.services.jobs.worker import Check, Worker
from app.services.store.store import Store
from tests.services.jobs.toy import ToyEngine

ANN = Principal("acme", "ann", frozenset({"chat"}), "key-1")


@dataclass
class Errand:
    """A kind of job that does what a function says, and counts how often it was begun."""

    does: Callable[[JobWork], Awaitable[Mapping[str, Any]]]
    name: str = "errand"
    scope: Scope = "chat"
    begun: list[str] = field(default_factory=list)

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        self.begun.append(work.state.job_id)
        return await self.does(work)


@dataclass
class Yard:
    store: Store
    desk: JobDesk
    shelf: Shelf
    worker: Worker
    executors: Executors
    engine: Any
    keeper: Keeper

    async def submit(self, who: Principal = ANN, **options: Any) -> JobState:
        return await self.desk.submit(JobRequest(who, "errand", **options))

    async def ended(self, job_id: str, tenant_id: str = "acme") -> JobState:
        return await self.until(job_id, lambda state: state.ended_at is not None, tenant_id)

    async def until(self, job_id: str, holds: Callable[[JobState], bool], tenant_id: str = "acme") -> JobState:
        async with asyncio.timeout(60):
            while not holds(state := await self.desk.state(tenant_id, None, job_id)):
                await asyncio.sleep(0.02)
        return state


async def anybody(principal: Principal) -> Principal:
    """Nobody is refused."""
    return principal


@asynccontextmanager
async def open_yard(
    store_url: str,
    engine: str,
    home: Path,
    kinds: Sequence[JobKind],
    *,
    check: Check = anybody,
    keeping: bool = True,
    performs: Callable[[Worker], Perform] = lambda worker: worker.perform,
    beat_s: float = BEAT_S,
    vet_callback: Callable[[str], object] = lambda _: None,
) -> AsyncIterator[Yard]:
    """`performs` may put something around what a worker does with an attempt."""
    store = await Store.open(store_url)
    shelf = Shelf(store.database)
    desk = JobDesk(store.database, kinds, vet_callback=vet_callback)
    worker = Worker(shelf, desk.kinds, check)
    executors = Executors(store.database, new_executor_id(), dead_after_s=4 * beat_s)
    await executors.beat()
    carries: Any
    if engine == "toy":
        carries = ToyEngine(executors.executor_id, performs(worker))
    else:
        url = engine_url(store_url, home)
        carries = await DbosEngine.open(url, executors.executor_id, performs(worker), poll_s=0.1)
    keeper = Keeper(shelf, carries, executors, worker, poll_s=0.1, retention_s=3600, beat_s=beat_s)
    desk.nudge = keeper.nudge
    task = asyncio.create_task(keeper.keep()) if keeping else None
    try:
        yield Yard(store, desk, shelf, worker, executors, carries, keeper)
    finally:
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        await worker.close()
        await carries.close()
        await executors.leave()
        await store.close()


def engine_url(store_url: str, home: Path) -> str:
    return store_url if store_url.startswith("postgresql") else f"sqlite:///{home / 'jobs.db'}"
