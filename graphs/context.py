"""RunContext and the ports: all that a node may reach beyond its state.

Ports are Protocols; `app/services` implements them and `tests/contracts` holds one suite for each, run on every
implementation. A node receives the context as `Runtime[RunContext]`; nothing here is serialised into checkpoints.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from graphs.events import Event
from graphs.policy import AnswerPolicy, Fusion, RetrievalPolicy
from graphs.prompts import PromptBook
from graphs.rules import Answered
from graphs.taint import Reading
from graphs.types import (
    Completion,
    Delta,
    Message,
    ModelInfo,
    ModelRequest,
    Passage,
    Retrieval,
    Ruling,
    Stage,
    Task,
    ToolProposal,
    ToolResult,
    ToolSpec,
    Verdict,
)


class Gateway(Protocol):
    """Every model behind one door. A gateway of a run also meters it."""

    def describe(self, model: str | None = None, task: Task = "chat") -> ModelInfo:
        """The model that a request naming `model`, or the default of `task`, would reach. Raises Missing."""
        ...

    def count_tokens(self, text: str, model: str | None = None, task: Task = "chat") -> int:
        """Tokens of `text` for that model; an upper estimate where its tokenizer is not at hand."""
        ...

    def stream(self, request: ModelRequest) -> AsyncIterator[Delta | Completion]:
        """Deltas in order, then exactly one Completion whose text is their concatenation. Raises UpstreamError.

        A Continuation among them says that the answer broke off there and another call goes on with it.
        """
        ...

    async def complete(self, request: ModelRequest) -> Completion:
        """The same call without the deltas."""
        ...


class Retriever(Protocol):
    """Search in the run's tenant; the tenant is bound at construction and no argument can change it."""

    async def search(
        self,
        query: str,
        *,
        collection: str | None = None,
        limit: int = 6,
        where: Mapping[str, Any] | None = None,
        variants: Sequence[str] = (),
        fusion: Fusion = "best",
        rerank: str = "none",
    ) -> Retrieval:
        """Best passages first. `where` filters by metadata: equalities ({"lang": "en"}), operators, and, or, not.

        `variants` are searched beside the query. A re-ranker that fails leaves the order as it is and is told.
        Raises Missing, Invalid.
        """
        ...


class Toolbox(Protocol):
    """The tools granted to this run."""

    def specs(self) -> tuple[ToolSpec, ...]: ...

    async def suggest(self, question: str) -> tuple[tuple[ToolSpec, float], ...]:
        """Tools that fit the question, best first, for models without native tool calls; empty when none does."""
        ...

    def ruling(self, proposal: ToolProposal, read: Reading) -> Ruling:
        """Whether the call may run, waits for people or may not, in a run that has read those texts.

        Policy, and never the model's to say. Of a call that `refusal` refuses it says deny.
        """
        ...

    def refusal(self, proposal: ToolProposal) -> ToolResult | None:
        """A `retry` or `refused` result if the call is unknown, ungranted or ill-formed; None if it may run."""
        ...

    async def run(self, proposal: ToolProposal) -> ToolResult:
        """Run it, at most once for each `call_id` where it has an effect. Never raises for a tool's own failure."""
        ...


class Guard(Protocol):
    """Looks at texts. It says what it saw; the graph decides the way on."""

    async def take_in(self, question: str, history: Sequence[Message]) -> tuple[str, tuple[Message, ...]]:
        """Both as the model may see them; what is taken out is `withheld`. Before anything is stored or traced."""
        ...

    @property
    def withheld(self) -> "Withheld | None":
        """What this run keeps from its model; None where policy redacts nothing."""
        ...

    @property
    def keeps_originals(self) -> bool:
        """Whether conversations hold what the user wrote, and not its placeholders."""
        ...

    def traced(self, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
        """A span's attributes as policy lets them be written down."""
        ...

    @property
    def safe_answer(self) -> str:
        """What the user reads where a question is blocked."""
        ...

    async def screen_read(self, stage: Stage, texts: Sequence[str]) -> tuple[Verdict, ...]:
        """What is thought of passages (`retrieved`) or tool results (`tool`); it stops nothing."""
        ...

    async def screen(self, text: str) -> tuple[str, tuple[Verdict, ...]]:
        """The question as it may go on (perhaps redacted) and why."""
        ...

    def stream_filter(self) -> "StreamFilter":
        """A fresh filter for one streamed answer."""
        ...

    async def check(self, text: str, redacted: Sequence[str] = ()) -> tuple[str, tuple[Verdict, ...]]:
        """The answer as it may leave (perhaps redacted) and why; `redacted` names what its stream has replaced."""
        ...

    async def judge(self, answered: Answered) -> tuple[Verdict, ...]:
        """What the tenant's rules think of the whole answer; `block` where it may not leave."""
        ...

    async def support(self, sentences: Sequence[str], passages: Sequence[Passage]) -> list[list[float]]:
        """How far each passage supports each sentence, in [0, 1]; shape (sentences, passages)."""
        ...

    @property
    def support_threshold(self) -> float:
        """From where a sentence counts as supported; chosen by measurement (see evals/LOG.md)."""
        ...


class Withheld(Protocol):
    """Originals of one run, by the placeholder that stands for each."""

    @property
    def originals(self) -> Mapping[str, str]: ...

    def recall(self, originals: Mapping[str, str]) -> None:
        """Take up again what an earlier leg of the run has kept."""
        ...

    def restored(self, value: Any) -> Any:
        """The value with the originals in all its texts."""
        ...

    def hidden(self, text: str) -> str:
        """The text with placeholders for the originals that are known."""
        ...


class StreamFilter(Protocol):
    """Applies the output patterns to a stream. What it has returned is final; it holds back what may yet match."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Names of the patterns that replaced something so far."""
        ...

    def feed(self, text: str) -> str: ...

    def close(self) -> str: ...


class Shape(Protocol):
    """The JSON schema that an answer has to satisfy."""

    @property
    def schema(self) -> Mapping[str, Any]: ...

    def faults(self, answer: str) -> tuple[str, ...]:
        """What is wrong with it, in words for a model; empty where it fits."""
        ...


class Span(Protocol):
    """One timed piece of a run. Values must be JSON-able."""

    def set(self, **attributes: Any) -> None: ...


class Trace(Protocol):
    """Where the stations of a run are timed. Nodes do not call it; `graphs.steps.station` and services do."""

    def span(self, name: str, kind: str, **attributes: Any) -> AbstractContextManager[Span]: ...


class Escalation(Protocol):
    """Hands a run to a person."""

    async def raise_(self, reason: str, *, detail: str = "") -> str:
        """Write an escalation for this run; gives its id."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run."""

    passages: int = 6
    history_messages: int = 12
    tool_steps: int = 4
    answer_tokens: int = 512


@dataclass(frozen=True, slots=True)
class RunContext:
    """Everything a run may touch. Made by the runner, one for each run or resume."""

    run_id: str
    tenant_id: str
    user_id: str
    gateway: Gateway
    retriever: Retriever
    toolbox: Toolbox
    guard: Guard
    prompts: PromptBook
    trace: Trace
    escalation: Escalation
    clock: Callable[[], datetime]
    limits: Limits = field(default_factory=Limits)
    model: str | None = None
    collection: str | None = None
    where: Mapping[str, Any] | None = None
    policy: RetrievalPolicy = field(default_factory=RetrievalPolicy)
    answers: AnswerPolicy = field(default_factory=AnswerPolicy)
    shape: Shape | None = None
    tell: Callable[[Event], None] | None = None
    """Hears at once what nodes write to the graph's stream; without it the stream itself has it."""
