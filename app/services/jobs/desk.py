"""Where jobs are asked for, looked at and called off: by the API, in any process, whether it performs jobs or not."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, insert, null, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ids import new_id
from app.records import Principal
from app.services.database import Database, to_us
from app.services.jobs.again import submit_again
from app.services.jobs.callbacks import WEBHOOK, callbacks, note_end
from app.services.jobs.counts import item_counts
from app.services.jobs.follow import follow
from app.services.jobs.ports import ItemState, ItemStatus, JobKind, JobRequest, JobState, JobStatus, News
from app.services.jobs.rows import item_rows, item_state, job_row, job_state
from app.services.jobs.tables import job_items, jobs
from graphs.errors import Conflict, Forbidden, Invalid, Missing

MAX_LISTED: Final = 200
INSERTED_AT_ONCE: Final = 200  # items; a statement holds some thousand values on either database
_ID = re.compile(r"[0-9a-f]{32}")
_CURSOR = re.compile(r"(\d{1,18})-([0-9a-f]{32})")


def _no_callbacks(url: str) -> None:
    raise Invalid("no callbacks are sent here", field="callbackUrl")


class JobDesk:
    """The jobs of every tenant, each seen by its own alone. A `user_id` None sees those of all users of the tenant."""

    def __init__(
        self,
        database: Database,
        kinds: Iterable[JobKind],
        nudge: Callable[[], object] = lambda: None,
        vet_callback: Callable[[str], object] = _no_callbacks,
    ) -> None:
        """`nudge` hears of each new job, so that a worker of this process need not wait for its next look.
        `vet_callback` raises a PilothouseError for a URL that no job's end may be told to."""
        self.kinds: Mapping[str, JobKind] = {kind.name: kind for kind in kinds}
        self.nudge, self._vet_callback = nudge, vet_callback
        self._database = database

    async def submit(self, request: JobRequest) -> JobState:
        """Write a job down. The same idempotency key of a user gives the job that there is.

        Raises Invalid for an unknown kind, Forbidden without the right that the kind needs, Conflict for a key that
        stands for another request; what the callback's URL is refused with.
        """
        if request.callback_url is not None:
            self._vet_callback(request.callback_url)
        self._check_right(request.principal, request.kind)
        # In a thread: the digest and the rows of 10,000 items would hold up everybody for a quarter of a second.
        row, items = await asyncio.to_thread(self._rows, request)
        async with self._database.write() as connection:
            # Not by rowcount: psycopg gives none for an INSERT that may do nothing.
            fresh = self._database.insert(jobs).values(row).on_conflict_do_nothing().returning(jobs.c.job_id)
            if (await connection.execute(fresh)).first() is not None:
                for some in _in_parts(items):
                    await connection.execute(insert(job_items), some)
                mine: ColumnElement[bool] = jobs.c.job_id == row["job_id"]
            else:
                mine = and_(
                    jobs.c.tenant_id == request.principal.tenant_id,
                    jobs.c.user_id == request.principal.user_id,
                    jobs.c.idempotency_key == request.idempotency_key,
                )
            found = (await connection.execute(select(jobs).where(mine))).one()
            told = await callbacks(connection, [found])
        if found.fingerprint != row["fingerprint"]:
            raise Conflict("this idempotency key stands for another request", field="idempotencyKey")
        self.nudge()
        return job_state(self._database.seals, found, told.get(found.job_id))

    async def state(self, tenant_id: str, user_id: str | None, job_id: str) -> JobState:
        """Raises Missing, for what is not an id as well as for somebody else's."""
        async with self._database.read() as connection:
            return await self._one(connection, _of(tenant_id, user_id, job_id))

    async def cancel(self, tenant_id: str, user_id: str | None, job_id: str) -> JobState:
        """A job that waits will not begin; the worker of one that runs is told. Raises Missing, Conflict if ended."""
        mine = _of(tenant_id, user_id, job_id)
        end = {"status": "cancelled", "ended_us": to_us(self._database.clock()), "fence": jobs.c.fence + 1}
        async with self._database.write() as connection:
            done = await connection.execute(update(jobs).where(mine, jobs.c.ended_us.is_(None)).values(end))
            state = await self._one(connection, mine)
            if not done.rowcount:
                raise Conflict(f"the job has ended as {state.status}")
            await _forget_inputs(connection, job_id)
            await note_end(self._database, connection, job_id)
        self.nudge()
        return state

    async def again(self, who: Principal, job: JobState, numbers: Collection[int] | None = None) -> JobState:
        """A new job with what this one did not bring about, or with those of its items. The caller has looked whose job
        it is. Raises Forbidden, Conflict."""
        self._check_right(who, job.kind)
        job_id = await submit_again(self._database, who, job, numbers)
        self.nudge()
        return await self.state(who.tenant_id, who.user_id, job_id)

    async def page(
        self,
        tenant_id: str,
        user_id: str | None,
        limit: int,
        cursor: str | None,
        *,
        kind: str | None = None,
        status: JobStatus | None = None,
    ) -> tuple[list[JobState], str | None]:
        """Newest first, and the next page's cursor; deliveries only where their kind is named. Raises Invalid."""
        query = select(jobs).where(jobs.c.tenant_id == tenant_id, _user(user_id), _after(cursor))
        query = query.where(jobs.c.kind != WEBHOOK if kind is None else jobs.c.kind == kind)
        if status is not None:
            query = query.where(jobs.c.status == status)
        query = query.order_by(jobs.c.created_us.desc(), jobs.c.job_id.desc()).limit(_checked(limit) + 1)
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
            told = await callbacks(connection, rows[:limit])
        last = rows[limit - 1] if len(rows) > limit else None
        found = [job_state(self._database.seals, row, told.get(row.job_id)) for row in rows[:limit]]
        return found, None if last is None else f"{last.created_us}-{last.job_id}"

    def follow(self, job_id: str, after: int = 0) -> AsyncGenerator[News, None]:
        """What is new of a job and of its items behind that number, until it has ended; whose job it is the caller has
        looked."""
        return follow(self._database, job_id, after)

    async def counts(self, job_id: str) -> Mapping[ItemStatus, int]:
        """How many of a job's items there are of each status; those that are none are left out."""
        return await item_counts(self._database, job_id)

    async def items(
        self, job_id: str, limit: int, after: int = 0, *, status: ItemStatus | None = None
    ) -> list[ItemState]:
        """Items numbered above `after`, in order, without their contents. The caller has looked whose job it is."""
        columns = [column for column in job_items.c if column is not job_items.c.content]
        query = select(*columns, null().label("content")).where(
            job_items.c.job_id == job_id, job_items.c.number > after
        )
        if status is not None:
            query = query.where(job_items.c.status == status)
        async with self._database.read() as connection:
            rows = (await connection.execute(query.order_by(job_items.c.number).limit(_checked(limit)))).all()
        return [item_state(self._database.seals, row._asdict()) for row in rows]

    async def begun(self) -> frozenset[str]:
        """What was begun for items of jobs that have not ended: a worker goes on with it, and nobody else may."""
        query = select(job_items.c.ref).join(jobs, jobs.c.job_id == job_items.c.job_id)
        async with self._database.read() as connection:
            held = query.where(jobs.c.ended_us.is_(None), job_items.c.status == "begun", job_items.c.ref.is_not(None))
            return frozenset((await connection.execute(held)).scalars())

    async def _one(self, connection: AsyncConnection, mine: ColumnElement[bool]) -> JobState:
        row = (await connection.execute(select(jobs).where(mine))).one_or_none()
        if row is None:
            raise Missing("no such job")
        told = (await callbacks(connection, [row])).get(row.job_id)
        return job_state(self._database.seals, row, told)

    def _rows(self, request: JobRequest) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
        """The job's own and those of its items."""
        seals = self._database.seals
        row = job_row(request, new_id(), to_us(self._database.clock()))
        return seals.seal(jobs, row), [seals.seal(job_items, item) for item in item_rows(request, row["job_id"])]

    def _check_right(self, who: Principal, name: str) -> None:
        kind = self.kinds.get(name)
        if kind is None or kind.scope is None:
            asked_for = sorted(name for name, each in self.kinds.items() if each.scope is not None)
            raise Invalid(f"kind must be one of {', '.join(asked_for)}", field="kind")
        if not who.may(kind.scope):
            raise Forbidden(f"a job of the kind {kind.name} needs the scope {kind.scope}")


def _of(tenant_id: str, user_id: str | None, job_id: str) -> ColumnElement[bool]:
    if _ID.fullmatch(job_id) is None:
        raise Missing("no such job")
    return and_(jobs.c.job_id == job_id, jobs.c.tenant_id == tenant_id, _user(user_id))


def _user(user_id: str | None) -> ColumnElement[bool]:
    return true() if user_id is None else jobs.c.user_id == user_id


def _checked(limit: int) -> int:
    if not 1 <= limit <= MAX_LISTED:
        raise Invalid(f"limit must be between 1 and {MAX_LISTED}, not {limit}", field="limit")
    return limit


def _after(cursor: str | None) -> ColumnElement[bool]:
    if cursor is None:
        return true()
    if (last := _CURSOR.fullmatch(cursor)) is None:
        raise Invalid("the cursor is not one that this list gave", field="cursor")
    at, key = int(last[1]), last[2]
    return (jobs.c.created_us < at) | and_(jobs.c.created_us == at, jobs.c.job_id < key)


async def _forget_inputs(connection: AsyncConnection, job_id: str) -> None:
    """What a job would still have done is not kept: it may be long, and nobody will read it. Whom a document is for
    stays with its name."""
    mine = job_items.c.job_id == job_id
    await connection.execute(update(job_items).where(mine).values(input={}, content=None))


def _in_parts(rows: Sequence[Mapping[str, Any]]) -> Iterable[Sequence[Mapping[str, Any]]]:
    return (rows[at : at + INSERTED_AT_ONCE] for at in range(0, len(rows), INSERTED_AT_ONCE))
