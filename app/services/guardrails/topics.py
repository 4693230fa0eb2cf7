"""What a text is about, by the nearest of a topic's examples.

Near is a cosine of the embedder's vectors, so examples should be whole questions like those that are meant, and more of
them reach further. Nothing is trained: a topic is as good as its examples, and other languages than theirs are far off.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from app.reading import Embedder


class Topics:
    """Compares texts with examples, whose vectors are computed once."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._examples: dict[tuple[str, ...], NDArray[np.float32]] = {}

    async def near(
        self, pieces: Sequence[str], topics: Mapping[str, tuple[str, ...]], threshold: float
    ) -> tuple[str, ...]:
        """The topics one of whose examples is at least so near to one of the pieces, in their order."""
        vectors = await self._embedder.embed(pieces)
        return tuple([name for name, examples in topics.items() if await self._nearest(vectors, examples) >= threshold])

    async def _nearest(self, vectors: NDArray[np.float32], examples: tuple[str, ...]) -> float:
        known = self._examples.get(examples)
        if known is None:
            known = self._examples[examples] = await self._embedder.embed(examples)
        return float((vectors @ known.T).max())
