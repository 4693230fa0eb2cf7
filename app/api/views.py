"""What goes out over HTTP: each view says what it takes from the record behind it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, Self, TypeVar

from pydantic import Field

from app.records import ApprovalState, Camel, CardOrigin, EscalationState, Mode, Principal, RunStatus, SpanRecord
from app.services.store.records import (
    ApprovalRecord,
    CollectionRecord,
    ConversationRecord,
    EscalationRecord,
    FeedbackRecord,
    KeyRecord,
    MessageRecord,
    Page,
    Rating,
    RunRecord,
    TicketRecord,
)
from graphs.types import Decision, Passage, Trust

if TYPE_CHECKING:
    from app.services.alerts.shelf import Alert
    from app.services.audit import Entry
    from app.services.ingest.ingest import Record
    from app.services.switches.switches import Switch

T = TypeVar("T")
R = TypeVar("R")


class ListOut(Camel, Generic[T]):
    """A page of a list, newest first; `nextCursor` is null on the last."""

    items: list[T]
    next_cursor: str | None = None


class KeyOut(Camel):
    key_id: str
    tenant_id: str
    user_id: str
    name: str
    scopes: tuple[str, ...]
    groups: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, record: KeyRecord) -> Self:
        return cls.model_validate(record, from_attributes=True)


class NewKeyOut(KeyOut):
    """`key` is shown here and never again."""

    key: str


class MessageOut(Camel):
    message_id: str
    request_id: str | None
    role: str
    content: str
    created_at: datetime

    @classmethod
    def of(cls, record: MessageRecord) -> Self:
        return cls(
            message_id=record.message_id,
            request_id=record.run_id,
            role=record.role,
            content=record.content,
            created_at=record.created_at,
        )


class ConversationOut(Camel):
    conversation_id: str
    title: str
    created_at: datetime

    @classmethod
    def of(cls, record: ConversationRecord) -> Self:
        return cls.model_validate(record, from_attributes=True)


class ConversationDetail(ConversationOut):
    """With its last messages, oldest first."""

    messages: list[MessageOut]


class CollectionOut(Camel):
    name: str
    documents: int
    chunks: int

    @classmethod
    def of(cls, record: CollectionRecord) -> Self:
        return cls.model_validate(record, from_attributes=True)


class DocumentOut(Camel):
    document_id: str
    collection: str
    title: str
    media_type: str
    size_bytes: int
    sha256: str
    chunks: int
    metadata: Mapping[str, Any]
    allow_groups: tuple[str, ...]
    trust: Trust
    uploaded_by: str | None = None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, record: "Record", reader: Principal) -> Self:
        """`uploaded_by` is the owner's to know."""
        told = cls.model_validate(record, from_attributes=True)
        return told if reader.is_owner else told.model_copy(update={"uploaded_by": None})


class DocumentDetail(DocumentOut):
    """With the normalised text that the offsets of passages and citations count in."""

    text: str


class FailedDocument(Camel):
    document_id: str
    code: str
    message: str


class IngestOut(Camel):
    """What became of an upload: each document is whole in the index or absent from it."""

    collection: str
    documents: list[DocumentOut]
    failed: list[FailedDocument] = Field(default_factory=list)


class ResultOut(Camel):
    """A passage; `start` and `end` are characters in the document's normalised text."""

    document_id: str
    chunk_id: str
    title: str
    heading: str
    text: str
    score: float
    start: int
    end: int
    collection: str
    metadata: Mapping[str, Any]
    trust: Trust = "untrusted"

    @classmethod
    def of(cls, passage: Passage) -> Self:
        return cls.model_validate(passage, from_attributes=True)


class ApprovalOut(Camel):
    """A tool call that people decide on. `arguments` are as the model proposed them, `standing` as they would run now,
    and `binding` is the digest of that: send it back with a decision, so that it is on nothing else.

    Of `needs` 2, `firstBy` has approved. `risk`, `reasons` and `origins` are of our policy, never of the model.
    """

    id: str
    request_id: str
    user_id: str
    tool: str
    arguments: Mapping[str, Any]
    risk: str
    state: ApprovalState
    created_at: datetime
    expires_at: datetime
    decision: Decision | None
    decided_by: str | None
    decided_at: datetime | None
    decided_arguments: Mapping[str, Any] | None
    comment: str
    needs: int
    first_by: str | None
    first_at: datetime | None
    standing: Mapping[str, Any]
    binding: str
    definition: str
    reasons: tuple[str, ...]
    origins: list[CardOrigin]

    @classmethod
    def of(cls, record: ApprovalRecord) -> Self:
        return cls(
            id=record.approval_id,
            request_id=record.run_id,
            user_id=record.user_id,
            tool=record.tool,
            arguments=record.arguments,
            risk=record.risk,
            state=record.state,
            created_at=record.created_at,
            expires_at=record.expires_at,
            decision=record.decision,
            decided_by=record.decided_by,
            decided_at=record.decided_at,
            decided_arguments=record.decided_arguments,
            comment=record.comment,
            needs=record.needs,
            first_by=record.first_by,
            first_at=record.first_at,
            standing=record.standing,
            binding=record.binding,
            definition=record.definition,
            reasons=record.reasons,
            origins=[CardOrigin.model_validate(origin) for origin in record.origins],
        )


class TicketOut(Camel):
    ticket_id: str
    request_id: str
    user_id: str
    title: str
    body: str
    created_at: datetime

    @classmethod
    def of(cls, record: TicketRecord) -> Self:
        return cls(
            ticket_id=record.ticket_id,
            request_id=record.run_id,
            user_id=record.user_id,
            title=record.title,
            body=record.body,
            created_at=record.created_at,
        )


class EscalationOut(Camel):
    """A run that was handed to people. `reason` is in words, `detail` a code or names of patterns, never contents."""

    escalation_id: str
    request_id: str
    reason: str
    detail: str
    created_at: datetime
    state: EscalationState
    taken_by: str | None
    taken_at: datetime | None
    closed_by: str | None
    closed_at: datetime | None
    comment: str

    @classmethod
    def of(cls, record: EscalationRecord) -> Self:
        names = cls.model_fields.keys() - {"request_id"}
        return cls(request_id=record.run_id, **{name: getattr(record, name) for name in names})


class AuditOut(Camel):
    """`userId` is null for the platform itself and for a person who was forgotten."""

    sequence: int
    at: datetime
    tenant_id: str
    user_id: str | None
    action: str
    subject: str
    facts: Mapping[str, str | int | bool | None]
    digest: str

    @classmethod
    def of(cls, entry: "Entry") -> Self:
        return cls(
            sequence=entry.sequence,
            at=entry.at,
            tenant_id=entry.tenant_id,
            user_id=entry.user_id,
            action=entry.action,
            subject=entry.subject,
            facts=entry.facts,
            digest=entry.digest,
        )


class FeedbackOut(Camel):
    request_id: str
    user_id: str
    rating: Rating
    comment: str
    created_at: datetime

    @classmethod
    def of(cls, record: FeedbackRecord) -> Self:
        return cls(
            request_id=record.run_id,
            user_id=record.user_id,
            rating=record.rating,
            comment=record.comment,
            created_at=record.created_at,
        )


class RunOut(Camel):
    """A run as a list shows it; its card has the rest."""

    request_id: str
    conversation_id: str | None
    user_id: str
    mode: Mode
    feature: str
    status: RunStatus
    message: str
    answer: str
    model: str
    provider: str
    latency_ms: float
    input_tokens: int
    output_tokens: int
    cost_usd_micros: int
    validation: str
    error_code: str | None
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, record: RunRecord) -> Self:
        names = cls.model_fields.keys() - {"request_id"}
        return cls(request_id=record.run_id, **{name: getattr(record, name) for name in names})


class SwitchOut(Camel):
    """What is switched off, since when, why and by whom (tenant/user)."""

    kind: str
    name: str
    reason: str
    by: str
    created_at: datetime

    @classmethod
    def of(cls, switch: "Switch") -> Self:
        return cls.model_validate(switch, from_attributes=True)


class AlertOut(Camel):
    """An alert. `subject` is a budget's scope (`tenant:acme`), a model or a process; `share` is of the budget."""

    alert_id: str
    kind: Literal["budget", "breaker", "credential", "loop"]
    subject: str
    detail: str
    share: float
    created_at: datetime
    acknowledged_at: datetime | None
    acknowledged_by: str
    delivery: Literal["none", "waiting", "sent", "failed"] = Field(description="To the webhook, where there is one.")

    @classmethod
    def of(cls, alert: "Alert") -> Self:
        return cls(**{name: getattr(alert, name) for name in cls.model_fields})


class SpanOut(Camel):
    """A timed piece of a run; `parentId` null marks the root."""

    span_id: str
    parent_id: str | None
    name: str
    kind: str
    started_at: datetime
    ended_at: datetime
    status: Literal["ok", "error", "interrupted"]
    attributes: Mapping[str, Any]

    @classmethod
    def of(cls, record: SpanRecord) -> Self:
        return cls.model_validate(record, from_attributes=True)


class Status(Camel):
    status: str


class Readiness(Status):
    """`trace_backlog` counts the ended runs that wait for their export."""

    trace_backlog: int


class RunState(Camel):
    request_id: str
    status: RunStatus


class Problem(Camel):
    """RFC 9457. `code` is stable, `detail` is for people, `errors` names every field that is wrong."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    field: str | None = None
    errors: list[dict[str, str]] = Field(default_factory=list)


def listed(page: Page[R], of: Callable[[R], T]) -> ListOut[T]:
    """A page of the store's records in their outside shape."""
    return ListOut(items=[of(record) for record in page.items], next_cursor=page.next_cursor)
