"""A cross-encoder on this machine's cores: a folder with `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`.

The layout in which sentence-transformers and Hugging Face export them. A pair is read to the model's 512th token.
"""

import asyncio
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np

from app.services.gateway.provider import Reranked
from app.services.gateway.rerank import Rerankers
from graphs.errors import Invalid, UpstreamError
from graphs.types import ModelInfo, Usage

LIMIT_TOKENS: Final = 512
LIMIT_CHARS: Final = 16_384  # 32 characters a token, as the embedder does
BATCH: Final = 8
_MODELS: Final = ("model.onnx", "onnx/model.onnx")


class OnnxReranker(Rerankers):
    """Free. Making one loads the model; `open` does it off the event loop. Batches go to a thread one at a time."""

    def __init__(self, info: ModelInfo, folder: Path, *, threads: int = 2) -> None:
        """Raises Invalid for a folder that holds no cross-encoder."""
        super().__init__(info)
        # Lazy: onnxruntime costs 38 MB, and few configurations re-rank here.
        import onnxruntime
        from tokenizers import Tokenizer

        model = next((folder / name for name in _MODELS if (folder / name).is_file()), None)
        if model is None or not (folder / "tokenizer.json").is_file():
            raise Invalid(f"{folder} has no model.onnx with a tokenizer.json", field="path")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores alone
        try:
            self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # both raise bare ones of their own for a file that they cannot read
            raise Invalid(f"the cross-encoder in {folder} cannot be read", field="path") from error
        self._tokenizer.enable_truncation(LIMIT_TOKENS, strategy="longest_first")
        self._tokenizer.no_padding()
        self._takes = {each.name for each in self._session.get_inputs()}
        if not self._takes <= {"input_ids", "attention_mask", "token_type_ids"}:
            raise Invalid(f"the model in {folder} wants inputs that no cross-encoder has", field="path")
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rerank")
        self._closed = False

    @classmethod
    async def open(cls, info: ModelInfo, folder: Path, *, threads: int = 2) -> "OnnxReranker":
        return await asyncio.to_thread(cls, info, folder, threads=threads)

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(_readable(text)).ids)

    async def rerank(self, question: str, texts: Sequence[str]) -> Reranked:
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        loop = asyncio.get_running_loop()
        pairs = await loop.run_in_executor(self._worker, self._pairs, question, texts)
        scores = [0.0] * len(texts)
        for rows in _batches([len(pair.ids) for pair in pairs]):
            read = await loop.run_in_executor(self._worker, self._forward, [pairs[row] for row in rows])
            for row, score in zip(rows, read, strict=True):
                scores[row] = score
        if not all(map(math.isfinite, scores)):
            raise UpstreamError(f"{self.info.name} gave a score that is no number")
        usage = Usage(sum(len(pair.ids) for pair in pairs))
        return Reranked(tuple(scores), self.info.name, usage, self.info.version)

    async def close(self) -> None:
        self._closed = True
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _pairs(self, question: str, texts: Sequence[str]) -> list[Any]:
        found: list[Any] = self._tokenizer.encode_batch([(_readable(question), _readable(text)) for text in texts])
        return found

    def _forward(self, pairs: Sequence[Any]) -> list[float]:
        """In [0, 1]: the sigmoid of one logit, or the second class's share of two."""
        shape = (len(pairs), max(len(pair.ids) for pair in pairs))
        feeds = {name: np.zeros(shape, np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
        for row, pair in enumerate(pairs):
            feeds["input_ids"][row, : len(pair.ids)] = pair.ids
            feeds["attention_mask"][row, : len(pair.ids)] = 1
            feeds["token_type_ids"][row, : len(pair.ids)] = pair.type_ids
        logits = self._session.run(None, {name: feeds[name] for name in self._takes})[0]
        logits = np.asarray(logits, np.float64).reshape(len(pairs), -1)
        if logits.shape[1] > 2:
            raise UpstreamError(f"{self.info.name} does not give one score a pair")
        one = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        scores: list[float] = (1 / (1 + np.exp(-np.clip(one, -500, 500)))).tolist()
        return scores


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers, BATCH at a time, pairs of like length together: little is padded."""
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    for first in range(0, len(rows), BATCH):
        yield rows[first : first + BATCH]


def _readable(text: str) -> str:
    return text[:LIMIT_CHARS].encode("utf-8", "replace").decode()
