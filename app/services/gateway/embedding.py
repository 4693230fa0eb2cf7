"""Models that turn texts into vectors: the embedded one, and what every embedding model has in common."""

import asyncio
import math
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final, Protocol

from app import reading
from app.services.gateway.provider import Embedded
from graphs.errors import Invalid, UpstreamError
from graphs.types import Completion, Delta, ModelInfo, ModelRequest, Usage

MINILM_NAME: Final = "all-minilm-l6-v2"
MAX_TEXTS: Final = 2_048  # OpenAI's own bound for one call
_WINDOW_TOKENS: Final = 256

Vectors = tuple[tuple[float, ...], ...]


class Embedder(reading.Embedder, Protocol):
    """What this package needs of the embedder beside it."""

    @property
    def id(self) -> str: ...

    def count_tokens(self, text: str) -> int: ...


class Embeddings:
    """What embedding models share as providers: they answer nobody."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info

    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        raise Invalid(f"{self.info.name} embeds texts and does not answer", field="model")


class MiniLmEmbeddings(Embeddings):
    """The embedded MiniLM: free, English above all. A text is read to its 256th token and no further.

    Closing it leaves the embedder to its owner.
    """

    def __init__(self, embedder: Embedder) -> None:
        super().__init__(embedding_info(MINILM_NAME, "minilm", _WINDOW_TOKENS, version=embedder.id))
        self._embedder = embedder
        self._closed = False

    def count_tokens(self, text: str) -> int:
        return self._embedder.count_tokens(text)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        read = await asyncio.to_thread(lambda: sum(map(self.count_tokens, texts)))
        vectors = await self._embedder.embed(texts)
        told = tuple(tuple(vector) for vector in vectors.tolist())
        return Embedded(told, self.info.name, Usage(input_tokens=read), self.info.version)

    async def close(self) -> None:
        self._closed = True


def embedding_info(name: str, provider: str, window_tokens: int, version: str = "") -> ModelInfo:
    """An embedding model as callers see it: it writes no tokens."""
    return ModelInfo(name, version, provider, window_tokens, max_output_tokens=0, native_tools=False)


def checked(name: str, vectors: Sequence[Sequence[Any]], texts: int, dimensions: int | None) -> Vectors:
    """The vectors of so many texts. Raises UpstreamError unless there is one for each, all of one length."""
    lengths = {len(vector) for vector in vectors}
    if len(vectors) != texts or len(lengths) != 1 or 0 in lengths:
        raise UpstreamError(f"{name} did not give a vector for each text, all of one length")
    if dimensions is not None and lengths != {dimensions}:
        raise UpstreamError(f"{name} gave vectors of {lengths.pop()} dimensions, not {dimensions}")
    if not all(_is_number(value) for vector in vectors for value in vector):
        raise UpstreamError(f"{name} gave a vector that does not consist of numbers")
    return tuple(tuple(map(float, vector)) for vector in vectors)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def refuse_batch(texts: Sequence[str]) -> None:
    """Raises Invalid for a batch that no embedding model takes."""
    if not texts:
        raise Invalid("there is nothing to embed", field="input")
    if len(texts) > MAX_TEXTS:
        raise Invalid(f"{len(texts)} texts are more than one call may embed ({MAX_TEXTS})", field="input")
