"""A job in the hands of a worker: its items, and words that count only as long as the job is that worker's."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from sqlalchemy import Update, and_, delete, exists, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.database import Database
from app.services.jobs.counts import item_counts
from app.services.jobs.ports import Busy, ItemEnd, ItemState, ItemStatus, JobProgress, JobState
from app.services.jobs.rows import failure_row, item_state
from app.services.jobs.tables import job_items, job_leases, jobs
from graphs.errors import Conflict

LOOK_AGAIN_S: Final = 0.5
_UNSETTLED = job_items.c.status.in_(("waiting", "begun"))


class Overtaken(Conflict):
    """The job was called off, or another worker has it: this one was thought dead."""

    code = "overtaken"


class Work:
    """What a kind of job is handed; see the port JobWork."""

    def __init__(self, database: Database, state: JobState, fence: int) -> None:
        self.state = state
        self._database, self._fence = database, fence

    async def open_items(self) -> AsyncIterator[ItemState]:
        mine, last = job_items.c.job_id == self.state.job_id, 0
        query = select(job_items).where(mine, _UNSETTLED).order_by(job_items.c.number).limit(1)
        while True:
            async with self._database.read() as connection:
                row = (await connection.execute(query.where(job_items.c.number > last))).one_or_none()
            if row is None:
                return
            last = row.number
            # In a thread: a large document takes a while to open.
            yield await asyncio.to_thread(item_state, self._database.seals, row._asdict())

    async def begin(self, number: int, ref: str) -> None:
        async with self._database.write() as connection:
            await self._hold(connection)
            await connection.execute(self._item(number).values(status="begun", ref=ref))

    async def note(self, notes: Mapping[int, Mapping[str, Any]], stage: str) -> None:
        async with self._database.write() as connection:
            await self._hold(connection)
            for number, told in notes.items():
                await connection.execute(
                    self._item(number).values(self._sealed(number, {"status": "begun", "result": told}))
                )
            await connection.execute(update(jobs).where(jobs.c.job_id == self.state.job_id).values(stage=stage))

    async def settle(self, ends: Sequence[ItemEnd]) -> None:
        async with self._database.write() as connection:
            await self._hold(connection)
            settled = 0
            for end in ends:
                last: dict[str, Any] = {"result": end.result, "error": failure_row(end.error)}
                if end.error is None:
                    last |= {"status": "succeeded", "input": {}, "allow_groups": None, "content": None}
                else:
                    last |= {"status": "failed"}
                settled += (
                    await connection.execute(self._item(end.number).values(self._sealed(end.number, last)))
                ).rowcount
            mine = jobs.c.job_id == self.state.job_id
            await connection.execute(update(jobs).where(mine).values(done=jobs.c.done + settled))

    async def progress(self, progress: JobProgress) -> None:
        async with self._database.write() as connection:
            await self._hold(connection)
            mine = jobs.c.job_id == self.state.job_id
            told = {"done": progress.done, "total": progress.total, "stage": progress.stage}
            await connection.execute(update(jobs).where(mine).values(told))

    @asynccontextmanager
    async def alone(self, name: str, *, wait: bool = True) -> AsyncIterator[None]:
        while not await self._lease(name):
            if not wait:
                raise Busy(f"another job is at {name}")
            await asyncio.sleep(LOOK_AGAIN_S)
        try:
            yield
        finally:
            mine = (job_leases.c.name == name, job_leases.c.job_id == self.state.job_id)
            async with self._database.write() as connection:
                await connection.execute(delete(job_leases).where(*mine, job_leases.c.fence == self._fence))

    async def failed(self, limit: int) -> Sequence[ItemState]:
        mine = (job_items.c.job_id == self.state.job_id, job_items.c.status == "failed")
        query = select(job_items).where(*mine).order_by(job_items.c.number).limit(limit)
        async with self._database.read() as connection:
            return [item_state(self._database.seals, row._asdict()) for row in await connection.execute(query)]

    async def counts(self) -> Mapping[ItemStatus, int]:
        return await item_counts(self._database, self.state.job_id)

    async def _lease(self, name: str) -> bool:
        """Take the lease where nobody has it, or who has it is not at its job any more."""
        mine = {"job_id": self.state.job_id, "fence": self._fence}
        holder = and_(jobs.c.job_id == job_leases.c.job_id, jobs.c.fence == job_leases.c.fence)
        held = exists().where(holder, jobs.c.ended_us.is_(None))
        fresh = self._database.insert(job_leases).values({"name": name} | mine).on_conflict_do_nothing()
        orphaned = update(job_leases).where(job_leases.c.name == name, ~held).values(mine)
        async with self._database.write() as connection:
            await self._hold(connection)
            if (await connection.execute(fresh.returning(job_leases.c.name))).first() is not None:
                return True
            return bool((await connection.execute(orphaned)).rowcount)

    async def _hold(self, connection: AsyncConnection) -> None:
        """Lock the job's row for this transaction, if it is still ours."""
        mine = (jobs.c.job_id == self.state.job_id, jobs.c.fence == self._fence, jobs.c.ended_us.is_(None))
        held = await connection.execute(update(jobs).where(*mine).values(fence=self._fence))
        if not held.rowcount:
            raise Overtaken(f"the job {self.state.job_id} is not this worker's any more")

    def _sealed(self, number: int, values: Mapping[str, Any]) -> Mapping[str, Any]:
        job = self.state
        return self._database.seals.seal(
            job_items, values, tenant_id=job.principal.tenant_id, job_id=job.job_id, number=number
        )

    def _item(self, number: int) -> Update:
        return update(job_items).where(
            job_items.c.job_id == self.state.job_id, job_items.c.number == number, _UNSETTLED
        )
