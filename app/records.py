"""The values that cross `app`: who asks, what is asked, what a run left behind.

The answer card is one object for the API, the console and the trace; its JSON is camelCase everywhere it leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from app.scopes import SCOPES as SCOPES
from app.scopes import Scope as Scope
from app.sight import EVERYTHING, Sight
from graphs.policy import Fusion
from graphs.types import Trust, Usage

Mode = Literal["chat", "rag", "agent"]
RunStatus = Literal["running", "waiting", "completed", "blocked", "failed", "cancelled"]
ApprovalState = Literal["pending", "approved_once", "approved", "denied", "expired", "void"]
EscalationState = Literal["open", "taken", "closed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """A user of a tenant, as one who did something."""

    tenant_id: str
    user_id: str

    def __str__(self) -> str:
        return f"{self.tenant_id}/{self.user_id}"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a request comes from. The tenant is taken from the credential alone."""

    tenant_id: str
    user_id: str
    scopes: frozenset[str]
    key_id: str = ""
    groups: frozenset[str] = frozenset()

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "owner" in self.scopes

    @property
    def whose(self) -> str | None:
        """The user whose runs and jobs it sees: its own, or None for the whole tenant's."""
        return None if self.may("runs") else self.user_id

    @property
    def actor(self) -> Actor:
        return Actor(self.tenant_id, self.user_id)

    @property
    def is_owner(self) -> bool:
        return "owner" in self.scopes

    @property
    def sight(self) -> Sight:
        """What it sees of its tenant's documents; the owner all of them."""
        return EVERYTHING if self.is_owner else Sight(self.groups)


@dataclass(frozen=True, slots=True)
class Payer:
    """Who a model call is for, and so whose allowance it draws on. `run_id` is empty for a call outside a run."""

    tenant_id: str
    user_id: str
    key_id: str = ""
    feature: str = ""
    request_id: str = ""
    run_id: str = ""


@dataclass(frozen=True, slots=True)
class Charge:
    """One attempt at a model call as it is reserved, before anything is sent.

    `wanted_micros` covers its worst case. Where the budget has less left, anything down to `least_micros` is granted
    and the caller has to cap the answer accordingly. `prompt_tokens` and `prompt_micros` are an estimate of what is
    spent the moment the prompt is read: it is what a call costs that a killed process never settled.
    """

    payer: Payer
    model: str
    provider: str
    route: str
    task: str
    attempt: int
    streamed: bool
    price_source: str
    wanted_micros: int
    least_micros: int
    prompt_tokens: int
    prompt_micros: int


Outcome = Literal["ok", "failed", "cancelled", "cached"]


@dataclass(frozen=True, slots=True)
class Bill:
    """How an attempt ended and what it cost. Times are milliseconds."""

    outcome: Outcome
    usage: Usage
    cost_micros: int
    latency_ms: float
    first_token_ms: float | None = None
    error_code: str = ""
    model_version: str = ""


@dataclass(frozen=True, slots=True)
class SearchWish:
    """How a caller wants passages looked for; None leaves it to the collection's configuration."""

    rewrite: Literal["auto", "words", "off"] | None = None
    variants: int | None = None
    fusion: Fusion | None = None
    rerank: str | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a caller wants run. `conversation_id` None starts a new conversation; `response_schema` is a JSON schema
    that the answer has to satisfy.

    The wish for `retrieval` is heeded in the mode rag alone, whose runs are not resumed, and is not kept.
    """

    message: str
    mode: Mode = "chat"
    conversation_id: str | None = None
    collection: str | None = None
    model: str | None = None
    where: Mapping[str, Any] | None = None
    feature: str = "api"
    retrieval: SearchWish = SearchWish()
    response_schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class RunEvent:
    """One event of a run's stream; `number` counts from 1 within the run and is the event's id."""

    number: int
    type: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document as it is written down beside the index: what is known of it, and the text that offsets count in.

    `structure` is the ingest's own. `allow_groups` None leaves the document those that it has. `uploaded_by` is the
    user who writes it, None for a command of the operator's.
    """

    document_id: str
    title: str
    media_type: str
    size_bytes: int
    sha256: str
    chunks: int
    metadata: Mapping[str, Any]
    text: str
    structure: str = ""
    allow_groups: Sequence[str] | None = ()
    trust: Trust = "untrusted"
    uploaded_by: str | None = None


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """A finished span; `parent_id` None marks the root. `kind`: run, station, model, search, tool. Times are UTC."""

    span_id: str
    run_id: str
    parent_id: str | None
    name: str
    kind: str
    started_at: datetime
    ended_at: datetime
    status: Literal["ok", "error", "interrupted"]
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Camel(BaseModel):
    """Frozen, closed, camelCase on the outside; input values never appear in its error messages."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid", hide_input_in_errors=True
    )


class CardCitation(Camel):
    number: int
    chunk_id: str
    document_id: str
    title: str
    heading: str
    quote: str
    start: int
    end: int
    score: float
    collection: str


class CardSentence(Camel):
    text: str
    start: int
    end: int
    score: float
    supported: bool
    citations: tuple[int, ...] = ()


class CardOrigin(Camel):
    """An argument that repeats an untrusted text which the run had read."""

    argument: str
    kind: str
    name: str
    trust: str
    match: str
    quote: str


class CardTool(Camel):
    """A call that the model asked for. `risk` is as it counted in this run, `ruling` what policy said, and why."""

    call_id: str
    name: str
    arguments: dict[str, Any]
    status: str
    summary: str = ""
    risk: str = ""
    ruling: str = ""
    reasons: tuple[str, ...] = ()
    origins: tuple[CardOrigin, ...] = ()


class CardVerdict(Camel):
    guard: str
    stage: str
    action: str
    reasons: tuple[str, ...] = ()


class CardStation(Camel):
    """A station's share of the run; `latency_ms` is wall time, `started_ms` its offset from the run's start."""

    name: str
    started_ms: float
    latency_ms: float


class CardSearch(Camel):
    """What was searched in the place of the message, and how. `rewritten_by` is words or model, empty for nobody.

    `rewrite_failed`, `no_variants` and `not_reranked` say why something that was wished for is not there.
    """

    query: str
    rewritten_by: str = ""
    rewrite_failed: str = ""
    rewrite_prompt: str = ""
    variants: tuple[str, ...] = ()
    no_variants: str = ""
    variants_prompt: str = ""
    reranked_by: str = ""
    not_reranked: str = ""


class CardUsage(Camel):
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    calls: int = 0
    cost_usd_micros: int = 0


class CardError(Camel):
    kind: str
    code: str
    message: str
    retry_after_s: float | None = None


class AnswerCard(Camel):
    """All there is to know of a run's answer, except the contents of its prompt (the trace has those)."""

    request_id: str
    conversation_id: str
    mode: Mode
    status: RunStatus
    answer: str = ""
    answered: bool = True
    citations: tuple[CardCitation, ...] = ()
    sentences: tuple[CardSentence, ...] = ()
    tools: tuple[CardTool, ...] = ()
    verdicts: tuple[CardVerdict, ...] = ()
    pending_approval: str | None = None
    search: CardSearch | None = Field(default=None, description="None where nothing was searched.")
    retrieved_chunk_ids: tuple[str, ...] = ()
    prompt_version: str = ""
    graph_fingerprint: str = ""
    model: str = ""
    model_version: str = ""
    provider: str = ""
    index_version: str = ""
    embedder: str = ""
    stations: tuple[CardStation, ...] = ()
    latency_ms: float = 0.0
    usage: CardUsage = Field(default_factory=CardUsage)
    reasons: tuple[str, ...] = Field(default=(), description="Why these models were chosen.")
    degraded: str = Field(default="", description="What the budget's ladder changed.")
    without_model: bool = Field(default=False, description="No model answered; the answer is a safe one.")
    cached: bool = Field(default=False, description="The answer was kept from an earlier call and cost nothing.")
    continued_by: tuple[str, ...] = Field(default=(), description="Models that went on with an answer which broke off.")
    validation: str = ""
    trust: Trust | None = None
    error: CardError | None = None
    safe_answer: str = Field(default="", description="What to show in the place of an answer; of a failed run.")
    created_at: datetime
