"""The values that travel between graphs and the services behind the ports.

All frozen: a node returns new values, it never edits one. Offsets are characters into the document's normalised
text, end exclusive. Scores are higher when better and compare only within one call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant", "tool"]
Risk = Literal["read", "write", "outbound", "destructive"]
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "no_answer", "unknown"]
GuardAction = Literal["allow", "flag", "redact", "block"]
Stage = Literal["input", "retrieved", "tool", "output"]
Decision = Literal["approve", "deny"]
Task = Literal["chat", "rag", "agent", "arguments", "embedding", "rewrite", "multi_query", "rerank"]
# Where a text came from: the operator's own hand, a system of the tenant's, or anybody (uploaded files, fetched URLs).
Trust = Literal["operator", "tenant", "untrusted"]
SourceKind = Literal["operator", "user", "document", "tool", "earlier"]
Match = Literal["exact", "decoded", "reversed", "near"]
Ruled = Literal["allow", "ask", "two_person", "deny"]


@dataclass(frozen=True, slots=True)
class Passage:
    """One chunk of a document as a search returned it."""

    chunk_id: str
    document_id: str
    title: str
    text: str
    start: int
    end: int
    score: float
    collection: str
    heading: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    trust: Trust = "untrusted"


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What one search gave and exactly which index gave it.

    `reranked_by` read the best candidates again; `not_reranked` is why nobody has, though it was wished for.
    """

    passages: tuple[Passage, ...]
    index_version: str
    embedder: str
    reranked_by: str = ""
    not_reranked: str = ""


@dataclass(frozen=True, slots=True)
class Citation:
    """A passage that supports at least one sentence of the answer; `number` is how the text refers to it, from 1.

    `start` and `end` enclose the supporting quote in the document; `score` is the measured support in [0, 1].
    """

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


@dataclass(frozen=True, slots=True)
class SentenceSupport:
    """One sentence of an answer, its place in the answer's text, and how well the passages support it, in [0, 1]."""

    text: str
    start: int
    end: int
    score: float
    supported: bool
    citations: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as a model sees it. `parameters` is a JSON schema of type object.

    `examples` pair a question with the arguments that serve it; models without native tool calls are shown them.
    `trust` is whose words its results are, beside the passages it brings, which say for themselves. One that is `own`
    works on the tenant's own data alone and sends its arguments nowhere.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    risk: Risk = "read"
    examples: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    trust: Trust = "untrusted"
    own: bool = False


@dataclass(frozen=True, slots=True)
class ToolProposal:
    """A call that a model asks for; nothing has run yet. `call_id` is ours and doubles as the idempotency key."""

    call_id: str
    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back. `status`: ok; retry (arguments can be mended); refused (final); denied (by a person)."""

    call_id: str
    name: str
    status: Literal["ok", "retry", "refused", "denied"]
    content: str
    passages: tuple[Passage, ...] = ()
    index_version: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """An argument of a call repeats a text that the run has read: which argument, of which text, and how.

    `argument` is the path of the value ("to/0/address"), `name` the document, tool or message it comes from, `quote`
    the first characters of what both have in common, as the argument has it.
    """

    argument: str
    kind: SourceKind
    name: str
    trust: Trust
    match: Match
    quote: str


@dataclass(frozen=True, slots=True)
class Ruling:
    """What policy says of a call, at the risk it has in this run; `reasons` are for the person who decides."""

    then: Ruled
    risk: Risk
    reasons: tuple[str, ...] = ()
    origins: tuple[Origin, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One turn as a model reads it. `trust` is that of the least trusted text it was made of, as far as is known."""

    role: Role
    content: str
    tool_calls: tuple[ToolProposal, ...] = ()
    tool_call_id: str | None = None
    trust: Trust = "untrusted"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; `estimated` when the provider did not say and our tokenizer counted.

    Tokens read from and written into the provider's prompt cache are parts of the input tokens.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False
    cached_input_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.estimated or other.estimated,
            self.cached_input_tokens + other.cached_input_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a caller must know of a model before it writes a prompt for it."""

    name: str
    version: str
    provider: str
    context_tokens: int
    max_output_tokens: int
    native_tools: bool
    extractive: bool = False


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One call of a model. `model` None means the default for the `task`.

    `grounding` and `question` repeat, as data, what the prompt says in words: the extractive answerer reads nothing
    else, wire providers ignore them. `response_schema` is a JSON schema the answer must satisfy. `tool_choice` is auto,
    none, required or the name of the one tool to call. The answer ends before the first of the `stop` texts.
    """

    messages: tuple[Message, ...]
    model: str | None = None
    task: Task = "chat"
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str = "auto"
    response_schema: Mapping[str, Any] | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    question: str = ""
    grounding: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of a streamed answer, in order; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Continuation(Delta):
    """From this piece on another call of a model goes on with an answer that broke off; its text may be empty."""

    model: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The whole of one model call; the last item of every stream."""

    text: str
    model: str
    model_version: str
    provider: str
    usage: Usage
    finish_reason: FinishReason
    tool_calls: tuple[ToolProposal, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a guard thought of a text at a stage. `reasons` name patterns, never the matched content."""

    guard: str
    stage: Stage
    action: GuardAction
    reasons: tuple[str, ...] = ()
