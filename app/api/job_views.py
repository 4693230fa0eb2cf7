"""Jobs as they come in over HTTP and go out again."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, StringConstraints

from app.api.collection_views import PromoteIn
from app.api.schemas import Collection, Filter, Id, Message, Name, Url
from app.jobs.items import run_item
from app.names import HANDBOOK
from app.records import AnswerCard, Camel, Mode, RunRequest
from app.services.jobs.ports import (
    CallbackStatus,
    ItemNews,
    ItemState,
    ItemStatus,
    JobFailure,
    JobItem,
    JobState,
    JobStatus,
)

MAX_RUNS = 10_000


def _own(name: str) -> str:
    if name == HANDBOOK:
        raise ValueError("the handbook is the product's own")
    return name


OwnCollection = Annotated[Collection, AfterValidator(_own)]


class RunIn(Camel):
    """One run of a batch. `customId` comes back with its result."""

    custom_id: Annotated[str, StringConstraints(max_length=512)] = ""
    message: Message
    mode: Mode = "chat"
    conversation_id: Id | None = None
    collection: Collection | None = None
    model: Name | None = None
    filter: Filter | None = None
    feature: Name = "batch"

    def request(self) -> RunRequest:
        return RunRequest(
            message=self.message,
            mode=self.mode,
            conversation_id=self.conversation_id,
            collection=self.collection,
            model=self.model,
            where=self.filter,
            feature=self.feature,
        )


class _Asked(Camel):
    """A smaller `priority` comes first among the jobs of the tenant."""

    priority: Annotated[StrictInt, Field(ge=1, le=1_000)] = 100
    callback_url: Url | None = Field(default=None, description="Told of the job's end by a signed webhook.")

    def payload(self) -> Mapping[str, Any]:
        return {}

    def items(self) -> Sequence[JobItem]:
        return ()


class RunsIn(_Asked):
    """A batch of runs."""

    kind: Literal["runs"]
    runs: Annotated[list[RunIn], Field(min_length=1, max_length=MAX_RUNS, fail_fast=True)]

    def items(self) -> Sequence[JobItem]:
        return [run_item(run.custom_id, run.request()) for run in self.runs]


class ChunkerIn(Camel):
    """How documents are cut; sizes are in tokens, about WordPieces."""

    name: Literal["structure", "sentences", "tokens"]
    size: Annotated[StrictInt, Field(ge=20, le=2_000)] | None = None
    overlap: Annotated[StrictInt, Field(ge=0, le=1_000)] | None = None

    def told(self) -> str:
        """Raises Invalid."""
        from app.services.ingest.chunk import Chunking  # loaded by then; the socket does not wait for it

        return str(Chunking.checked(self.name, self.size, self.overlap))


class RebuildIn(_Asked):
    """A collection made anew beside its live build, which it replaces if the gate lets it; with `keep` it waits.

    What is left out stays as it is.
    """

    kind: Literal["rebuild"]
    collection: OwnCollection
    chunker: ChunkerIn | None = None
    embedder: Name | None = Field(
        default=None, description="An embedding model; `all-minilm-l6-v2` is the embedded one."
    )
    keep: bool = False
    gate: PromoteIn = PromoteIn()

    def payload(self) -> Mapping[str, Any]:
        """Raises Invalid for sizes that no chunk can have."""
        return {
            "collection": self.collection,
            "chunker": None if self.chunker is None else self.chunker.told(),
            "embedder": self.embedder,
            "keep": self.keep,
            "bounds": self.gate.model_dump(),
        }


class OptimizeIn(_Asked):
    """A collection's index kept quick and small now, rather than with the next round."""

    kind: Literal["optimize"]
    collection: OwnCollection

    def payload(self) -> Mapping[str, Any]:
        return {"collection": self.collection}


class RetentionIn(_Asked):
    """Jobs that ended long ago forgotten now, rather than within the hour. For the owner."""

    kind: Literal["retention"]


JobIn = RunsIn | RebuildIn | OptimizeIn | RetentionIn
JOBS: Final[Mapping[str, type[JobIn]]] = {
    "runs": RunsIn,
    "rebuild": RebuildIn,
    "optimize": OptimizeIn,
    "retention": RetentionIn,
}


class JobProgressOut(Camel):
    """`total` 0 is not known yet."""

    done: int
    total: int
    stage: str


class JobErrorOut(Camel):
    kind: str
    code: str
    message: str

    @classmethod
    def of(cls, failure: JobFailure | None) -> Self | None:
        return None if failure is None else cls(kind=failure.kind, code=failure.code, message=failure.message)


class JobOut(Camel):
    """A job as it stands. `result` is there once it has succeeded; an `error` of a queued job is why it waits."""

    job_id: str
    kind: str
    status: JobStatus
    progress: JobProgressOut
    result: Mapping[str, Any] | None
    error: JobErrorOut | None
    priority: int
    attempt: int = Field(description="0 at first; one more each time it was begun again.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    callback: CallbackStatus | None = Field(description="How far the webhook of its end is; null without one.")

    @classmethod
    def of(cls, state: JobState) -> Self:
        progress = state.progress
        return cls(
            job_id=state.job_id,
            kind=state.kind,
            status=state.status,
            progress=JobProgressOut(done=progress.done, total=progress.total, stage=progress.stage),
            result=state.result,
            error=JobErrorOut.of(state.error),
            priority=state.priority,
            attempt=state.attempt,
            created_at=state.created_at,
            started_at=state.started_at,
            ended_at=state.ended_at,
            callback=state.callback,
        )


class JobItemOut(Camel):
    """A line or document of a job. A run's `card` is as the run stands now: an approval may have come since."""

    number: int
    name: str
    status: ItemStatus
    request_id: str | None
    card: AnswerCard | None
    result: Mapping[str, Any] | None
    error: JobErrorOut | None

    @classmethod
    def of(cls, item: ItemState, card: AnswerCard | None) -> Self:
        return cls(
            number=item.number,
            name=item.name,
            status=item.status,
            request_id=item.ref,
            card=card,
            result=item.result,
            error=JobErrorOut.of(item.error),
        )


class JobItemNews(Camel):
    """How far a line or document is. `result` has the stages that a document has passed as `tookMs`, in milliseconds;
    a run's answer card is at `/api/ai/runs/{requestId}`."""

    number: int
    name: str
    request_id: str | None
    result: Mapping[str, Any] | None
    error: JobErrorOut | None

    @classmethod
    def of(cls, item: ItemNews) -> Self:
        return cls(
            number=item.number,
            name=item.name,
            request_id=item.ref,
            result=item.result,
            error=JobErrorOut.of(item.error),
        )
