"""A model on this machine's cores: a folder with `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`.

The layout in which sentence-transformers and Hugging Face export them. A text is read to the model's 512th token, or
to where its tokenizer says that it was trained.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from app.onnx import readable, session
from graphs.errors import Invalid

LIMIT_TOKENS: Final = 512
_MODELS: Final = ("model.onnx", "onnx/model.onnx")
_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")

T = TypeVar("T")


class OnnxModel:
    """Blocking but for `aside`, which does one thing after the other in a thread of the model's own."""

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        """Raises Invalid for a folder that holds no such model."""
        from tokenizers import Tokenizer  # Lazy: few configurations name such a model

        model = next((folder / name for name in _MODELS if (folder / name).is_file()), None)
        if model is None or not (folder / "tokenizer.json").is_file():
            raise Invalid(f"{folder} has no model.onnx with a tokenizer.json", field="path")
        try:
            self._session = session(str(model), threads=threads)
            self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # both raise bare ones of their own for a file that they cannot read
            raise Invalid(f"the model in {folder} cannot be read", field="path") from error
        trained = (self._tokenizer.truncation or {}).get("max_length", LIMIT_TOKENS)
        self._tokenizer.enable_truncation(min(trained, LIMIT_TOKENS), strategy="longest_first")
        self._tokenizer.no_padding()
        self._takes = {each.name for each in self._session.get_inputs()}
        if not self._takes <= set(_INPUTS):
            raise Invalid(f"the model in {folder} wants inputs that no text gives", field="path")
        with model.open("rb") as weights:
            self.version = hashlib.file_digest(weights, "sha256").hexdigest()[:8]
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="onnx")

    async def aside(self, work: Callable[..., T], *given: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, partial(work, *given))

    def close(self) -> None:
        self._worker.shutdown(wait=False, cancel_futures=True)

    def count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(readable(text, LIMIT_TOKENS)).ids)

    def encode(self, inputs: Sequence[Any]) -> list[Any]:
        """The tokens of readable texts, or of pairs of them."""
        found: list[Any] = self._tokenizer.encode_batch(inputs)
        return found

    def run(self, encoded: Sequence[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The model's first output, and 1 where a token stands in each row."""
        shape = (len(encoded), max(len(each.ids) for each in encoded))
        feeds = {name: np.zeros(shape, np.int64) for name in _INPUTS}
        for row, each in enumerate(encoded):
            feeds["input_ids"][row, : len(each.ids)] = each.ids
            feeds["attention_mask"][row, : len(each.ids)] = 1
            feeds["token_type_ids"][row, : len(each.ids)] = each.type_ids
        first: NDArray[Any] = np.asarray(self._session.run(None, {name: feeds[name] for name in self._takes})[0])
        return first, feeds["attention_mask"]
