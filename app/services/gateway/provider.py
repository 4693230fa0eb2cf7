"""What the gateway needs of a model server, whatever its wire."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

from graphs.types import Completion, Delta, FinishReason, ModelInfo, ModelRequest, Usage


class Provider(Protocol):
    """One model behind one wire. A provider never retries: the gateway is the one layer that may."""

    @property
    def info(self) -> ModelInfo: ...

    def count_tokens(self, text: str) -> int:
        """Tokens of `text`; an upper estimate where the model's tokenizer is not at hand."""
        ...

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        """Deltas in order, then exactly one Completion whose text is their concatenation.

        Cancelling the task or closing the generator closes the upstream at once. Raises UpstreamError or one of its
        kinds; a closed provider raises it too. Half an answer is an error, never a Completion.
        """
        ...

    async def close(self) -> None:
        """Give everything back; calls in flight fail. Closing twice is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one call. They count tokens: a read timeout never fires on a server that drips bytes."""

    connect_s: float = 5.0
    first_token_s: float = 60.0
    between_tokens_s: float = 30.0
    total_s: float = 300.0

    @classmethod
    def of_routes(cls, connect_s: float) -> Self:
        """For a model of the configuration: its routes say how long it may take, up to an hour."""
        return cls(connect_s, 3_600.0, 3_600.0, 3_600.0)


@dataclass(slots=True)
class WireEvent:
    """One event of OpenAI's wire, or the whole answer of a call that does not stream: as sent, and parsed.

    `text` is the answer's text in it and `spoke` whether the client sees output by it (text, a tool call, reasoning).
    `more`: the next event came with it and follows at once, so that both may leave together. `beside` is output that is
    no text, for a count where the server gives none.
    """

    raw: bytes
    data: dict[str, Any]
    text: str
    spoke: bool
    more: bool = False
    beside: str = ""


@dataclass(frozen=True, slots=True)
class WireEnd:
    """The end of a forwarded call. `usage` None where the server did not say."""

    usage: Usage | None
    finish_reason: FinishReason
    model_version: str


@runtime_checkable
class Forwards(Protocol):
    """A provider whose server speaks OpenAI's wire, so that requests and answers can pass as they are."""

    def forward(
        self, body: Mapping[str, Any], *, stream: bool, timeouts: Timeouts
    ) -> AsyncGenerator[WireEvent | WireEnd, None]:
        """The call with `model` replaced, usage asked for and the limit under the server's name for it; every other
        field as given.

        Events in order (exactly one for a call that does not stream), then one WireEnd. Raises as `stream` does.
        """
        ...


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of some texts, in their order and all of one length. `usage` counts input tokens only."""

    vectors: tuple[tuple[float, ...], ...]
    model: str
    usage: Usage
    model_version: str


@dataclass(frozen=True, slots=True)
class Reranked:
    """How well each text answers a question, in [0, 1] and the texts' order. `usage` counts input tokens only."""

    scores: tuple[float, ...]
    model: str
    usage: Usage
    model_version: str


@runtime_checkable
class Reranks(Protocol):
    """A provider whose model reads a question with each of several texts. Its `stream` raises Invalid."""

    async def rerank(self, question: str, texts: Sequence[str]) -> Reranked:
        """Raises UpstreamError or one of its kinds; cancelling closes the upstream at once."""
        ...


@runtime_checkable
class Embeds(Protocol):
    """A provider whose model turns texts into vectors. It holds no conversation: its `stream` raises Invalid."""

    async def embed(self, texts: Sequence[str]) -> Embedded:
        """One vector a text. Raises UpstreamError or one of its kinds; cancelling closes the upstream at once."""
        ...
