"""Jobs carried by DBOS: a row of its database for each attempt, dequeued tenant by tenant in random order.

It is given ids and nothing else. `APPLICATION_VERSION` is fixed, because DBOS leaves what another version queued where
it is; the workflow is one step, so that versions of it have nothing to disagree about. One engine a process: DBOS is a
singleton. What it lacks, `keeper.py` and `executors.py` do.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self

from sqlalchemy import make_url

from app.services.jobs.dbos_quiet import calm_log, refuse_pickle
from app.services.jobs.ports import Carriage, Perform, Ticket

APPLICATION_VERSION: Final = "pilothouse-jobs-1"  # of the tickets' shape, not of the product
QUEUE: Final = "jobs"
WORKFLOW: Final = "job"
MAX_RECOVERIES: Final = 5
POOL_SIZE: Final = 5
LET_GO_AFTER_S: Final = 10.0  # beginnings and ends of attempts take a moment to be written down
_OVER: Final = ("SUCCESS", "ERROR", "CANCELLED")
_GIVEN_UP: Final = "MAX_RECOVERY_ATTEMPTS_EXCEEDED"
_ONLY: Final = threading.Lock()  # held from a launch to its end


class DbosEngine:
    """Made by `open`, which starts its threads; `close` ends them and leaves attempts in hand to recovery."""

    def __init__(self, executor_id: str, perform: Perform, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._executor_id, self._perform, self._monotonic = executor_id, perform, monotonic
        self._performing: set[str] = set()
        self._idle: dict[str, float] = {}
        self._dbos: Any = None

    @classmethod
    async def open(
        cls,
        url: str,
        executor_id: str,
        perform: Perform,
        *,
        at_once: int = 4,
        at_once_per_tenant: int = 2,
        poll_s: float = 0.5,
    ) -> Self:
        """`url` names a database as SQLAlchemy's synchronous drivers do. `perform` runs on the loop of the caller.

        At most `at_once` jobs run in this process, and `at_once_per_tenant` of a tenant in all processes together.
        Raises RuntimeError while another engine of this process is open.
        """
        loop, engine = asyncio.get_running_loop(), cls(executor_id, perform)

        def on_our_loop(job_id: str, attempt: int) -> "Future[None]":
            return asyncio.run_coroutine_threadsafe(engine._attempt(job_id, attempt), loop)

        def launch() -> Any:
            return _launch(url, executor_id, on_our_loop, at_once, at_once_per_tenant, poll_s)

        # The thread cannot be cancelled: who leaves meanwhile waits for it, or its engine would perform for nobody.
        launching = asyncio.create_task(asyncio.to_thread(launch))
        try:
            engine._dbos = await asyncio.shield(launching)
        except asyncio.CancelledError:
            await asyncio.wait({launching})
            if launching.exception() is None:
                await asyncio.to_thread(_destroy, launching.result())
            raise
        return engine

    async def close(self) -> None:
        await asyncio.to_thread(_destroy, self._dbos)

    async def carry(self, tickets: Sequence[Ticket]) -> None:
        def enqueue() -> None:
            for ticket in tickets:
                options = {
                    "workflow_name": WORKFLOW,
                    "queue_name": QUEUE,
                    "workflow_id": _workflow_id(ticket),
                    "app_version": APPLICATION_VERSION,
                    "queue_partition_key": ticket.tenant_id,
                    "priority": ticket.priority,
                }
                self._dbos.enqueue_workflow_with_options(options, ticket.job_id, ticket.attempt)

        await asyncio.to_thread(enqueue)

    async def look(self, tickets: Sequence[Ticket]) -> list[Carriage | None]:
        ids = [_workflow_id(ticket) for ticket in tickets]
        found = {item.workflow_id: item.status for item in await self._list(workflow_ids=ids)} if ids else {}
        return [_carriage(found.get(each)) for each in ids]

    async def holders(self) -> frozenset[str]:
        return frozenset(item.executor_id for item in await self._list(status="PENDING", queue_name=QUEUE))

    async def recover(self, executor_id: str) -> int:
        # Private, for the predicate on the executor that the public resume_workflow lacks; a contract test holds it.
        return len(await asyncio.to_thread(self._dbos._recover_pending_workflows, [executor_id]))

    async def let_go(self) -> int:
        pending = await self._list(status="PENDING", queue_name=QUEUE)
        now = self._monotonic()
        idle = {item.workflow_id for item in pending if item.executor_id == self._executor_id} - self._performing
        self._idle = {each: self._idle.get(each, now) for each in idle}
        late = [each for each, since in self._idle.items() if now - since >= LET_GO_AFTER_S]
        if late:
            await asyncio.to_thread(self._dbos.cancel_workflows, late)
        return len(late)

    async def forget(self, tickets: Sequence[Ticket]) -> None:
        await asyncio.to_thread(self._dbos.delete_workflows, [_workflow_id(ticket) for ticket in tickets])

    async def _attempt(self, job_id: str, attempt: int) -> None:
        workflow_id = f"{job_id}.{attempt}"
        self._performing.add(workflow_id)
        try:
            await self._perform(job_id, attempt)
        finally:
            self._performing.discard(workflow_id)

    async def _list(self, **wanted: Any) -> list[Any]:
        def read() -> list[Any]:
            found: list[Any] = self._dbos.list_workflows(load_input=False, load_output=False, **wanted)
            return found

        return await asyncio.to_thread(read)


def _launch(
    url: str,
    executor_id: str,
    on_our_loop: Callable[[str, int], "Future[None]"],
    at_once: int,
    at_once_per_tenant: int,
    poll_s: float,
) -> Any:
    """Blocking."""
    # Heavy: a second, which a socket shall not wait for.
    from dbos import DBOS
    from dbos._serialization import DBOSPortableJSON

    if not _ONLY.acquire(blocking=False):
        raise RuntimeError("this process has an engine for jobs already, and DBOS knows only one")
    try:
        refuse_pickle()
        calm_log()
        _prepare(url)

        @DBOS.step(name="perform")
        async def perform(job_id: str, attempt: int) -> None:
            await asyncio.wrap_future(on_our_loop(job_id, attempt))

        @DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)
        async def job(job_id: str, attempt: int) -> None:
            await perform(job_id, attempt)

        DBOS(
            config={
                "name": "pilothouse",
                "system_database_url": url,
                "sys_db_pool_size": POOL_SIZE,
                "application_version": APPLICATION_VERSION,
                "executor_id": executor_id,
                "serializer": DBOSPortableJSON,
                "enable_otlp": False,
                "log_level": "WARNING",
            }
        )
        DBOS.launch()
        DBOS.register_queue(
            QUEUE,
            worker_concurrency=at_once,
            partition_concurrency=at_once_per_tenant,
            polling_interval_sec=poll_s,
            on_conflict="always_update",
        )
        calm_log()
    except BaseException:
        _destroy(DBOS)
        raise
    return DBOS


def _destroy(dbos: Any) -> None:
    """Blocking."""
    try:
        dbos.destroy(destroy_registry=True)
    finally:
        _ONLY.release()


def _prepare(url: str) -> None:
    """WAL, which DBOS does not set and which stays with the file: jobs went through 2.4 to 4 times as fast."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return
    Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(str(parsed.database), timeout=30)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


def _workflow_id(ticket: Ticket) -> str:
    return f"{ticket.job_id}.{ticket.attempt}"


def _carriage(status: str | None) -> Carriage | None:
    if status is None:
        return None
    if status == _GIVEN_UP:
        return "given_up"
    return "ended" if status in _OVER else "carried"
