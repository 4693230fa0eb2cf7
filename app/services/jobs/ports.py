"""What a job is, to who asks for one, to who does it, and to what carries it from the one to the other.

A job is written down before it is handed to the engine, with the rights of who asked; large inputs are its items, which
the engine never sees. A kind of job is done at least once from the start, so what it does has to bear repetition: items
that are settled are not given out again, and `JobWork` refuses the words of a worker that was overtaken.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from app.records import Principal, Scope

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: Final[tuple[JobStatus, ...]] = ("succeeded", "failed", "cancelled")
ItemStatus = Literal["waiting", "begun", "succeeded", "failed"]


@dataclass(frozen=True, slots=True)
class JobItem:
    """One line, document or other part of a job as it is submitted. `name` is the caller's own, unique or not."""

    name: str
    input: Mapping[str, Any] = field(default_factory=dict)
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job as it is asked for. `payload` holds ids and other small JSON; what is large goes into items.

    A smaller `priority` comes first within a tenant. The same `idempotency_key` of a tenant names the same job.
    """

    principal: Principal
    kind: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[JobItem] = ()
    priority: int = 100
    idempotency_key: str | None = None
    callback_url: str | None = None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """`done` of `total` items or other units; `stage` is a word of the kind's own. `total` 0 is not known yet."""

    done: int = 0
    total: int = 0
    stage: str = ""


@dataclass(frozen=True, slots=True)
class JobFailure:
    """Why a job, or an item of one, failed: an error of `graphs.errors` as it is kept."""

    kind: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class JobState:
    """A job as it stands. `attempt` counts from 0; `result` is there once it has succeeded."""

    job_id: str
    principal: Principal
    kind: str
    payload: Mapping[str, Any]
    priority: int
    status: JobStatus
    progress: JobProgress
    result: Mapping[str, Any] | None
    error: JobFailure | None
    attempt: int
    callback_url: str | None
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class ItemState:
    """An item as it stands. `ref` names what was begun for it, such as a run; `number` counts from 1."""

    number: int
    name: str
    status: ItemStatus
    ref: str | None
    input: Mapping[str, Any]
    content: bytes | None
    result: Mapping[str, Any] | None
    error: JobFailure | None


class JobWork(Protocol):
    """A job in the hands of the worker that does it. Every method raises Overtaken once the job is not its any more."""

    @property
    def state(self) -> JobState: ...

    def open_items(self) -> AsyncIterator[ItemState]:
        """The items that are not settled, in order, loaded one by one."""
        ...

    async def begin(self, number: int, ref: str) -> None:
        """Write down what is about to be done for an item, so that a second attempt can look what became of it."""
        ...

    async def settle(
        self, number: int, *, result: Mapping[str, Any] | None = None, error: JobFailure | None = None
    ) -> None:
        """Write an item's end down, once; its content is dropped, and the job's progress is one further."""
        ...

    async def progress(self, progress: JobProgress) -> None: ...

    async def counts(self) -> Mapping[ItemStatus, int]: ...


class JobKind(Protocol):
    """A kind of job. Stateless: any number of workers perform jobs of it."""

    @property
    def name(self) -> str: ...

    @property
    def scope(self) -> Scope:
        """What its owner has to hold, when it is submitted and still when it starts."""
        ...

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        """Do it and give its result: small JSON.

        An UpstreamError lets it be tried again after a while; any other PilothouseError is its end. It is cancelled
        when the job is, or when this process stops; in that case another attempt goes on with the items that are left.
        """
        ...


class JobEngine(Protocol):
    """Carries jobs to workers, in a fair order, and back from workers that died."""

    async def submit(self, request: JobRequest) -> JobState:
        """Raises Invalid for an unknown kind and Forbidden where the principal may not; Conflict for an idempotency
        key that stands for another request."""
        ...

    async def state(self, tenant_id: str, job_id: str) -> JobState:
        """Raises Missing, also for another tenant's."""
        ...

    async def cancel(self, tenant_id: str, job_id: str) -> JobState:
        """Raises Missing, and Conflict for a job that has ended."""
        ...
