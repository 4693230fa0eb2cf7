"""Documents as the index takes them, with real vectors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.services.retrieval.embedder import Embedder
from graphs.types import Trust


@dataclass(frozen=True)
class Piece:
    text: str
    start: int = 0
    heading: str = ""
    place: Mapping[str, str | int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        return self.start + len(self.text)


@dataclass(frozen=True)
class Doc:
    document_id: str
    title: str
    chunks: tuple[Piece, ...]
    vectors: NDArray[np.float32]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    state: str = ""
    allow_groups: tuple[str, ...] = ()
    trust: Trust = "tenant"


async def doc(
    embedder: Embedder,
    document_id: str,
    texts: str | Sequence[str],
    title: str = "",
    *,
    allow_groups: tuple[str, ...] = (),
    **metadata: Any,
) -> Doc:
    pieces = [texts] if isinstance(texts, str) else texts
    vectors = await embedder.embed(pieces)
    return Doc(document_id, title, tuple(map(Piece, pieces)), vectors, metadata, allow_groups=allow_groups)
