"""What a job is, to who asks for one, to who does it, and to what carries it from the one to the other.

A job is written down before an engine carries it, with the rights of who asked; large inputs are its items. It may be
attempted more than once, so what a kind does has to bear repetition: items that are settled are not given out again,
and `JobWork` refuses the words of a worker that was overtaken.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, Protocol

from app.records import Principal, Scope
from graphs.errors import Conflict

JobStatus = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ENDED: Final[tuple[JobStatus, ...]] = ("succeeded", "failed", "cancelled")
CallbackStatus = Literal["waiting", "delivered", "failed"]
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
    """A job as it stands. `attempt` counts from 0; `result` is there once it has succeeded, `error` once it has failed
    or while it waits for another attempt. `callback` is how far the webhook of its end is, if it has one."""

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
    callback: CallbackStatus | None = None


@dataclass(frozen=True, slots=True)
class ItemState:
    """An item as it stands. `ref` names what was begun for it, such as a run; `number` counts from 1. The `result` of
    one that is not settled yet is how far it is, as its kind noted it."""

    number: int
    name: str
    status: ItemStatus
    ref: str | None
    input: Mapping[str, Any]
    content: bytes | None
    result: Mapping[str, Any] | None
    error: JobFailure | None
    allow_groups: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ItemNews:
    """An item that was begun, got further or is settled; without what it was given, which may be long."""

    number: int
    name: str
    status: ItemStatus
    ref: str | None
    result: Mapping[str, Any] | None
    error: JobFailure | None
    allow_groups: Sequence[str] = ()
    """Of an ingest's document, as it was asked for; of one that has succeeded its own groups count."""


@dataclass(frozen=True, slots=True)
class News:
    """What a look found. Every item up to the number `through` is settled, and was told in this look or before."""

    state: JobState
    items: Sequence[ItemNews]
    through: int


@dataclass(frozen=True, slots=True)
class ItemEnd:
    """What became of an item: it failed where there is an `error`."""

    number: int
    result: Mapping[str, Any] | None = None
    error: JobFailure | None = None


class Busy(Conflict):
    """Another job has what this one wants for itself."""

    code = "busy"


class JobWork(Protocol):
    """A job in the hands of the worker that does it. What writes raises Overtaken once the job is not its any more."""

    @property
    def state(self) -> JobState: ...

    def open_items(self) -> AsyncIterator[ItemState]:
        """The items that are not settled, in order, loaded one by one."""
        ...

    async def begin(self, number: int, ref: str) -> None:
        """Write down what is about to be done for an item, so that a second attempt can look what became of it."""
        ...

    async def note(self, notes: Mapping[int, Mapping[str, Any]], stage: str) -> None:
        """Write down how far items are that are in hand, by number, and the stage of the whole; not more than twice a
        second, since each is a write."""
        ...

    async def settle(self, ends: Sequence[ItemEnd]) -> None:
        """Write the ends of items down, once: the job is that much further. What succeeded keeps nothing of what it was
        given, which lives on where it was brought to and is erased there; what failed can be tried again."""
        ...

    async def progress(self, progress: JobProgress) -> None:
        """Say how far it is, for a kind that works without items, or the stage of one with them."""
        ...

    def alone(self, name: str, *, wait: bool = True) -> AbstractAsyncContextManager[None]:
        """Have something for this job alone, among the jobs of all processes, for the block.

        Without `wait` raises Busy where another job has it.
        """
        ...

    async def failed(self, limit: int) -> Sequence[ItemState]:
        """The first of the items that failed, in this attempt or an earlier one."""
        ...

    async def counts(self) -> Mapping[ItemStatus, int]:
        """How many items there are of each status; those that are none are left out."""
        ...


class JobKind(Protocol):
    """A kind of job. Stateless: any number of workers perform jobs of it."""

    @property
    def name(self) -> str: ...

    @property
    def scope(self) -> Scope | None:
        """What its owner has to hold, when it is submitted and still when it starts. None: nobody can submit it."""
        ...

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        """Do it and give its result: small JSON.

        An UpstreamError lets it be tried again after a while; any other PilothouseError is its end. It is cancelled
        when the job is, or when this process stops; in that case another attempt goes on with the items that are left.
        """
        ...


Perform = Callable[[str, int], Awaitable[None]]
"""Does an attempt of a job, by the job's id and the attempt's number, and keeps what becomes of it to itself."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """An attempt of a job on its way to a worker: all that the engine ever knows of it."""

    job_id: str
    attempt: int
    tenant_id: str
    priority: int


Carriage = Literal["carried", "ended", "given_up"]


class JobEngine(Protocol):
    """Brings attempts to the `Perform` of some process: in a fair order, again after a crash, each by one at a time.

    It holds ids alone. What a job is and what became of it is in our own tables, so that an engine can be replaced.
    """

    async def carry(self, tickets: Sequence[Ticket]) -> None:
        """Take these on. The same ticket again changes nothing."""
        ...

    async def look(self, tickets: Sequence[Ticket]) -> list[Carriage | None]:
        """Of each: on its way or being done, over, given up after too many crashes; None for one never taken on."""
        ...

    async def holders(self) -> frozenset[str]:
        """The executors that have attempts in their hands, dead ones too."""
        ...

    async def recover(self, executor_id: str) -> int:
        """Bring what a dead process had in its hands to others; how many attempts that were."""
        ...

    async def let_go(self) -> int:
        """Count as over what this process holds and has not performed for a while, since its end could not be written
        down; how many attempts that were."""
        ...

    async def forget(self, tickets: Sequence[Ticket]) -> None:
        """Drop what is kept of these; one that waits is not brought to anybody any more."""
        ...
