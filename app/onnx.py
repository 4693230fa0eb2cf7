"""What all models on onnxruntime share: how a session is opened, texts are made readable, batched and pooled."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHARS_A_TOKEN = 32  # what lies beyond cannot matter, and tokenizing it would cost time


def session(model: bytes | str, *, threads: int) -> Any:
    """An onnxruntime session for the content of a model or its path. Raises what onnxruntime does."""
    import onnxruntime  # Lazy: 38 MB, and most commands run no such model

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores alone
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def readable(text: str, tokens: int) -> str:
    """Without what lies beyond a window of so many tokens; a "?" for each lone surrogate, which tokenizers refuse."""
    return text[: CHARS_A_TOKEN * tokens].encode("utf-8", "replace").decode()


def batches(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Row numbers, so many at a time, inputs of like length together: little is padded."""
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    for first in range(0, len(rows), size):
        yield rows[first : first + size]


def pooled(hidden: NDArray[Any], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean of the last hidden states over the real tokens, scaled to length 1; shape (texts, dimensions)."""
    mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    unit: NDArray[np.float32] = (mean / np.linalg.norm(mean, axis=1, keepdims=True)).astype(np.float32)
    return unit
