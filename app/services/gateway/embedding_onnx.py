"""An embedding model on this machine's cores; see `onnx_model` for what its folder holds.

A text's vector is the mean of its tokens' last hidden states, scaled to length 1, as sentence-transformers does it for
most of its models. One that was trained on its first token alone is not served right; what a model wants before its
texts is its callers' matter.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.onnx import batches, pooled, readable
from app.services.gateway.embedding import Embeddings, checked
from app.services.gateway.onnx_model import LIMIT_TOKENS, OnnxModel
from app.services.gateway.provider import Embedded
from graphs.errors import UpstreamError
from graphs.types import ModelInfo, Usage

BATCH: Final = 16


class OnnxEmbeddings(Embeddings):
    """Free. Making one loads the model; `open` does it off the event loop. Batches go to a thread one at a time."""

    def __init__(self, info: ModelInfo, folder: Path, *, dimensions: int | None = None, threads: int = 2) -> None:
        """Raises Invalid for a folder that holds no model. `dimensions` are held against what it gives."""
        self._model, self._dimensions = OnnxModel(folder, threads=threads), dimensions
        super().__init__(replace(info, version=self._model.version))
        self._closed = False

    @classmethod
    async def open(cls, info: ModelInfo, folder: Path, *, dimensions: int | None = None) -> "OnnxEmbeddings":
        return await asyncio.to_thread(cls, info, folder, dimensions=dimensions)

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        encoded = await self._model.aside(self._model.encode, [readable(text, LIMIT_TOKENS) for text in texts])
        found: list[list[float]] = [[]] * len(texts)
        for rows in batches([len(each.ids) for each in encoded], BATCH):
            some = await self._model.aside(self._vectors, [encoded[row] for row in rows])
            for row, vector in zip(rows, some.tolist(), strict=True):
                found[row] = vector
        usage = Usage(sum(len(each.ids) for each in encoded))
        vectors = await asyncio.to_thread(checked, self.info.name, found, len(texts), self._dimensions)
        return Embedded(vectors, self.info.name, usage, self.info.version)

    async def close(self) -> None:
        self._closed = True
        self._model.close()

    def _vectors(self, encoded: Sequence[Any]) -> NDArray[np.float32]:
        hidden, mask = self._model.run(encoded)
        if hidden.ndim != 3:
            raise UpstreamError(f"{self.info.name} does not give its tokens' hidden states first")
        return pooled(hidden, mask)
