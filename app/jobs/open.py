"""Opens the jobs of a process: the desk always, and a worker with an engine where the process performs jobs."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from app.jobs.collections import OPTIMIZE
from app.jobs.retention import RETENTION, RetentionJob
from app.jobs.webhook import WebhookJob
from app.services.database import Database
from app.services.jobs.dbos_engine import DbosEngine
from app.services.jobs.desk import JobDesk
from app.services.jobs.executors import Executors, new_executor_id
from app.services.jobs.keeper import Keeper
from app.services.jobs.ports import JobKind
from app.services.jobs.schedule import Recurring, Schedule
from app.services.jobs.shelf import Shelf
from app.services.jobs.worker import Check, Worker

log = logging.getLogger("pilothouse.jobs")

RETRY_S: Final = 10.0
RECURRING: Final = (Recurring(OPTIMIZE, 300.0), Recurring(RETENTION, 3_600.0))


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many jobs run at once, in a process and of a tenant in all of them; how often a worker looks for jobs; how
    long ended ones are kept, where their tenant has no time of its own."""

    at_once: int
    at_once_per_tenant: int
    poll_s: float
    retention_s: float
    retention_of_tenants_s: Mapping[str, float]


@asynccontextmanager
async def open_jobs(
    database: Database,
    kinds: Sequence[JobKind],
    webhooks: WebhookJob,
    retention: RetentionJob,
    check: Check,
    bounds: Bounds,
    engine_url: str | None,
    recurring: Sequence[Recurring] = RECURRING,
) -> AsyncIterator[JobDesk]:
    """Without an `engine_url` jobs are only asked for here, and other processes perform them.

    The engine is loaded behind the desk: jobs that come before it wait in the table.
    """
    desk = JobDesk(database, (*kinds, webhooks, retention), vet_callback=webhooks.vet)
    if engine_url is None:
        yield desk
        return
    working = asyncio.create_task(_work(database, desk, retention, check, bounds, engine_url, recurring), name="jobs")
    try:
        yield desk
    finally:
        working.cancel()
        await asyncio.wait({working})


async def _work(
    database: Database,
    desk: JobDesk,
    retention: RetentionJob,
    check: Check,
    bounds: Bounds,
    engine_url: str,
    recurring: Sequence[Recurring],
) -> None:
    """Until cancelled."""
    shelf = Shelf(database)
    worker = Worker(shelf, desk.kinds, check)
    executors = Executors(database, new_executor_id())
    engine = await _launched(executors, worker, bounds, engine_url)
    keeper = Keeper(
        shelf,
        engine,
        executors,
        worker,
        poll_s=bounds.poll_s,
        retention_s=bounds.retention_s,
        retention_of_tenants_s=bounds.retention_of_tenants_s,
    )
    desk.nudge, retention.sweep = keeper.nudge, keeper.sweep
    log.info("jobs are performed here", extra={"executor_id": executors.executor_id})
    asking = asyncio.create_task(Schedule(desk, recurring, database.clock).keep(), name="schedule")
    try:
        await keeper.keep()
    finally:
        asking.cancel()
        await worker.close()
        await engine.close()
        await executors.leave()


async def _launched(executors: Executors, worker: Worker, bounds: Bounds, engine_url: str) -> DbosEngine:
    """The engine, as soon as its database answers."""
    while True:
        try:
            await executors.beat()  # who holds attempts and does not beat is dead
            return await DbosEngine.open(
                engine_url,
                executors.executor_id,
                worker.perform,
                at_once=bounds.at_once,
                at_once_per_tenant=bounds.at_once_per_tenant,
                poll_s=bounds.poll_s,
            )
        except Exception:
            # The loop of a worker: an API without jobs is more than none.
            log.exception("the jobs' engine cannot be opened")
            await asyncio.sleep(RETRY_S)
