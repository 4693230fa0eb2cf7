"""What the store gives back: frozen rows. Times are aware UTC, money and tokens integers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, Literal, TypeVar

from app.records import AnswerCard, ApprovalState, EscalationState, Mode, RunStatus
from graphs.types import Decision, Risk, Trust

T = TypeVar("T")
Rating = Literal["up", "down"]
WAITING: Final[tuple[ApprovalState, ...]] = ("pending", "approved_once")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A slice of a list, newest first; `next_cursor` is None on the last one."""

    items: list[T]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key without its secret, of which only the SHA-256 is kept."""

    key_id: str
    tenant_id: str
    user_id: str
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConversationRecord:
    conversation_id: str
    tenant_id: str
    user_id: str
    title: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """`trust` is that of the least trusted text that it was made of; None where nobody knows."""

    message_id: str
    conversation_id: str
    run_id: str | None
    role: str
    content: str
    created_at: datetime
    trust: Trust | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as far as it is known: everything after `asked` is filled when it finishes or stops to wait.

    `asked` is what the caller chose beside the message: collection, model, where; a resumed run needs it again.
    `stations` is wall time in ms by station, summed where one was passed twice. `exported_at` and `trace_id` are set
    once the run's trace has left the outbox; an opinion puts it back. `process_id` is of the process that drives it
    now; empty for one that waits or has ended.
    """

    run_id: str
    conversation_id: str | None
    tenant_id: str
    user_id: str
    key_id: str
    mode: Mode
    feature: str
    status: RunStatus
    message: str
    asked: Mapping[str, Any]
    answer: str
    prompt_version: str
    model: str
    model_version: str
    provider: str
    graph_fingerprint: str
    index_version: str
    embedder: str
    retrieved_chunk_ids: tuple[str, ...]
    tool_calls: Sequence[Mapping[str, Any]]
    stations: Mapping[str, float]
    latency_ms: float
    input_tokens: int
    output_tokens: int
    usage_estimated: bool
    cost_usd_micros: int
    validation: str
    error_kind: str | None
    error_code: str | None
    error_message: str | None
    card: AnswerCard | None
    created_at: datetime
    ended_at: datetime | None
    exported_at: datetime | None
    trace_id: str | None
    process_id: str
    cancel_asked: bool
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs to list; None is any. `text` is looked for in message and answer; `since` is inclusive."""

    mode: Mode | None = None
    status: RunStatus | None = None
    model: str | None = None
    conversation_id: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class ApprovalRecord:
    """A tool call that waits for a person, or did. `decided_arguments` is None unless the person changed them.

    `binding` is the digest of the call as it would run now, or as it was approved (`graphs.toolhash`); `definition` of
    the tool as it was asked for. Of a call that needs two persons `first_by` has approved it with `first_arguments`,
    None where they are the proposed ones. `origins` says which arguments repeat what the run has read.
    """

    approval_id: str
    run_id: str
    interrupt_id: str
    tenant_id: str
    user_id: str
    tool: str
    arguments: Mapping[str, Any]
    risk: Risk
    state: ApprovalState
    created_at: datetime
    expires_at: datetime
    decided_by: str | None
    decided_at: datetime | None
    decided_arguments: Mapping[str, Any] | None
    comment: str
    call_id: str = ""
    definition: str = ""
    binding: str = ""
    needs: int = 1
    reasons: tuple[str, ...] = ()
    origins: Sequence[Mapping[str, str]] = ()
    first_by: str | None = None
    first_at: datetime | None = None
    first_arguments: Mapping[str, Any] | None = None

    @property
    def decision(self) -> Decision | None:
        """What was decided; None while it waits. Whatever was not approved counts as denied."""
        if self.waits:
            return None
        return "approve" if self.state == "approved" else "deny"

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def standing(self) -> Mapping[str, Any]:
        """The arguments that the next approval is for, or the last one was."""
        if self.decided_arguments is not None:
            return self.decided_arguments
        return self.arguments if self.first_arguments is None else self.first_arguments


@dataclass(frozen=True, slots=True)
class TicketRecord:
    ticket_id: str
    tenant_id: str
    user_id: str
    run_id: str
    idempotency_key: str
    title: str
    body: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class FeedbackRecord:
    run_id: str
    tenant_id: str
    user_id: str
    rating: Rating
    comment: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document without its text. `document_id` is the caller's own; `chunks` is how many the index holds.

    `allow_groups` are those that see it; where there is none, everybody of the tenant does. `uploaded_by` is who wrote
    it last, where that is known.
    """

    tenant_id: str
    collection: str
    document_id: str
    title: str
    media_type: str
    size_bytes: int
    sha256: str
    chunks: int
    metadata: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    allow_groups: tuple[str, ...] = ()
    trust: Trust = "untrusted"
    uploaded_by: str | None = None


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """`updated_at` is when the last of its documents was written."""

    name: str
    documents: int
    chunks: int
    size_bytes: int
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class EscalationRecord:
    """A run that was handed to people: open until one takes it, and closed by that one or another."""

    escalation_id: str
    run_id: str
    tenant_id: str
    reason: str
    detail: str
    created_at: datetime
    state: EscalationState = "open"
    taken_by: str | None = None
    taken_at: datetime | None = None
    closed_by: str | None = None
    closed_at: datetime | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that people who asked for it are to hear of; `subject` is the id of an approval or escalation.

    `tool` and `risk` say which of them hear it; they are empty for an escalation.
    """

    notice_id: str
    run_id: str
    tenant_id: str
    kind: str
    subject: str
    tool: str
    risk: str
    created_at: datetime
