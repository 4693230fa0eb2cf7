"""A cross-encoder on this machine's cores; see `onnx_model` for what its folder holds."""

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.onnx import batches, readable
from app.services.gateway.onnx_model import LIMIT_TOKENS, OnnxModel
from app.services.gateway.provider import Reranked
from app.services.gateway.rerank import Rerankers
from graphs.errors import UpstreamError
from graphs.types import ModelInfo, Usage

BATCH: Final = 8


class OnnxReranker(Rerankers):
    """Free. Making one loads the model; `open` does it off the event loop. Batches go to a thread one at a time."""

    def __init__(self, info: ModelInfo, folder: Path, *, threads: int = 2) -> None:
        """Raises Invalid for a folder that holds no cross-encoder."""
        super().__init__(info)
        self._model = OnnxModel(folder, threads=threads)
        self._closed = False

    @classmethod
    async def open(cls, info: ModelInfo, folder: Path, *, threads: int = 2) -> "OnnxReranker":
        return await asyncio.to_thread(cls, info, folder, threads=threads)

    def count_tokens(self, text: str) -> int:
        return self._model.count_tokens(text)

    async def rerank(self, question: str, texts: Sequence[str]) -> Reranked:
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        asked = readable(question, LIMIT_TOKENS)
        pairs = await self._model.aside(self._model.encode, [(asked, readable(text, LIMIT_TOKENS)) for text in texts])
        scores = [0.0] * len(texts)
        for rows in batches([len(pair.ids) for pair in pairs], BATCH):
            read = await self._model.aside(self._scores, [pairs[row] for row in rows])
            for row, score in zip(rows, read, strict=True):
                scores[row] = score
        if not all(map(math.isfinite, scores)):
            raise UpstreamError(f"{self.info.name} gave a score that is no number")
        usage = Usage(sum(len(pair.ids) for pair in pairs))
        return Reranked(tuple(scores), self.info.name, usage, self.info.version)

    async def close(self) -> None:
        self._closed = True
        self._model.close()

    def _scores(self, pairs: Sequence[Any]) -> list[float]:
        """In [0, 1]: the sigmoid of one logit, or the second class's share of two."""
        first, _ = self._model.run(pairs)
        logits = first.astype(np.float64).reshape(len(pairs), -1)
        if logits.shape[1] > 2:
            raise UpstreamError(f"{self.info.name} does not give one score a pair")
        one = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        scores: list[float] = (1 / (1 + np.exp(-np.clip(one, -500, 500)))).tolist()
        return scores
