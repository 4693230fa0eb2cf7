"""The jobs that have not ended, as those who keep and perform them see them.

Every change names what it expects to find, so that of two who act at once one finds nothing to change.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, or_, select, update

from app.services.database import Database, to_us
from app.services.jobs.callbacks import note_end
from app.services.jobs.ports import JobFailure, JobState, JobStatus, Ticket
from app.services.jobs.rows import failure_row, job_state
from app.services.jobs.tables import job_items, jobs

DUE_AT_ONCE: Final = 200
SWEPT_AT_ONCE: Final = 500
_OPEN = jobs.c.ended_us.is_(None)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a worker has taken. `failures` is how often something that it needs was away."""

    state: JobState
    fence: int
    failures: int

    @property
    def job_id(self) -> str:
        return self.state.job_id

    @property
    def tenant_id(self) -> str:
        return self.state.principal.tenant_id


class Shelf:
    """The open jobs of all tenants."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def claim(self, job_id: str, attempt: int) -> Claim | None:
        """Take the job for a worker. None where the attempt is not wanted any more."""
        now_us = to_us(self.database.clock())
        mine = and_(jobs.c.job_id == job_id, jobs.c.attempt == attempt, _OPEN)
        async with self.database.write() as connection:
            begun = update(jobs).where(mine, jobs.c.started_us.is_(None)).values(started_us=now_us)
            await connection.execute(begun)
            taken = update(jobs).where(mine).values(status="running", fence=jobs.c.fence + 1, error=None)
            row = (await connection.execute(taken.returning(jobs))).one_or_none()
        return None if row is None else Claim(job_state(self.database.seals, row), row.fence, row.failures)

    async def end(
        self,
        claim: Claim,
        status: JobStatus,
        *,
        result: Mapping[str, Any] | None = None,
        error: JobFailure | None = None,
    ) -> bool:
        """The worker's last word. False where the job is not its any more."""
        last = {"status": status, "result": result, "error": failure_row(error), "stage": ""}
        return await self._end(claim.job_id, _held(claim), self._sealed(claim, last))

    async def put_back(self, claim: Claim, *, pause_s: float, error: JobFailure | None = None) -> bool:
        """Let it be attempted again after a pause, by whoever comes; with an error it counts as a failure."""
        failed: Mapping[str, Any] = {}
        if error is not None:
            failed = self._sealed(claim, {"failures": jobs.c.failures + 1, "error": failure_row(error)})
        return await self._change(_held(claim), {**self._again(pause_s), **failed})

    async def due(self) -> list[tuple[Ticket, int]]:
        """Open jobs that somebody has to look after, the longest waiting first, each with its fence."""
        query = select(jobs).where(_OPEN, jobs.c.due_us <= to_us(self.database.clock()))
        async with self.database.read() as connection:
            rows = await connection.execute(query.order_by(jobs.c.due_us).limit(DUE_AT_ONCE))
            return [(Ticket(row.job_id, row.attempt, row.tenant_id, row.priority), row.fence) for row in rows]

    async def looked_after(self, tickets: Sequence[Ticket], pause_s: float) -> None:
        """The engine has these; look again after a pause."""
        if not tickets:
            return
        due_us = to_us(self.database.clock()) + round(pause_s * 1e6)
        # One that was put back meanwhile keeps its own time.
        mine = [and_(jobs.c.job_id == ticket.job_id, jobs.c.attempt == ticket.attempt) for ticket in tickets]
        async with self.database.write() as connection:
            for each in mine:
                await connection.execute(update(jobs).where(each, _OPEN).values(due_us=due_us))

    async def lost(self, ticket: Ticket, fence: int, pause_s: float) -> bool:
        """The engine is done with this attempt and the job is not: attempt it again."""
        return await self._change(_still(ticket, fence), self._again(pause_s))

    async def give_up(self, ticket: Ticket, fence: int, error: JobFailure) -> bool:
        last = {"status": "failed", "error": failure_row(error), "fence": fence + 1}
        return await self._end(ticket.job_id, _still(ticket, fence), self._sealed(ticket, last))

    async def overtaken(self, held: Mapping[str, int]) -> list[str]:
        """Of these jobs and fences, the jobs that are not theirs any more: called off, or in other hands."""
        query = select(jobs.c.job_id, jobs.c.fence).where(jobs.c.job_id.in_(held), _OPEN)
        async with self.database.read() as connection:
            found = {row.job_id: row.fence for row in await connection.execute(query)}
        return [job_id for job_id, fence in held.items() if found.get(job_id) != fence]

    async def old(self, age_s: float, of_tenants_s: Mapping[str, float]) -> list[Ticket]:
        """Every attempt of jobs that ended that long ago, some at a time; tenants may have an age of their own."""
        now = self.database.clock()

        def ended(age_s: float) -> ColumnElement[bool]:
            return jobs.c.ended_us < to_us(now - timedelta(seconds=age_s))

        own = [and_(jobs.c.tenant_id == tenant_id, ended(age_s)) for tenant_id, age_s in of_tenants_s.items()]
        others = and_(jobs.c.tenant_id.not_in(of_tenants_s), ended(age_s))
        query = select(jobs.c.job_id, jobs.c.attempt, jobs.c.tenant_id).where(or_(others, *own))
        async with self.database.read() as connection:
            rows = (await connection.execute(query.order_by(jobs.c.ended_us).limit(SWEPT_AT_ONCE))).all()
        return [Ticket(row.job_id, attempt, row.tenant_id, 0) for row in rows for attempt in range(row.attempt + 1)]

    async def forget(self, job_ids: Collection[str]) -> None:
        """Delete ended jobs and their items."""
        async with self.database.write() as connection:
            await connection.execute(delete(job_items).where(job_items.c.job_id.in_(job_ids)))
            await connection.execute(delete(jobs).where(jobs.c.job_id.in_(job_ids), ~_OPEN))

    def _sealed(self, of: Claim | Ticket, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return self.database.seals.seal(jobs, values, tenant_id=of.tenant_id, job_id=of.job_id)

    def _again(self, pause_s: float) -> dict[str, Any]:
        due_us = to_us(self.database.clock()) + round(pause_s * 1e6)
        return {
            "status": "queued",
            "attempt": jobs.c.attempt + 1,
            "fence": jobs.c.fence + 1,
            "due_us": due_us,
        }

    async def _end(self, job_id: str, mine: Any, last: Mapping[str, Any]) -> bool:
        ended = update(jobs).where(mine).values(**last, ended_us=to_us(self.database.clock()))
        async with self.database.write() as connection:
            if not (await connection.execute(ended)).rowcount:
                return False
            await note_end(self.database, connection, job_id)
        return True

    async def _change(self, mine: Any, values: Mapping[str, Any]) -> bool:
        async with self.database.write() as connection:
            return bool((await connection.execute(update(jobs).where(mine).values(**values))).rowcount)


def _held(claim: Claim) -> Any:
    return and_(jobs.c.job_id == claim.job_id, jobs.c.fence == claim.fence, _OPEN)


def _still(ticket: Ticket, fence: int) -> Any:
    return and_(jobs.c.job_id == ticket.job_id, jobs.c.attempt == ticket.attempt, jobs.c.fence == fence, _OPEN)
