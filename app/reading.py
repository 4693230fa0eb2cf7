"""Passages as the answerer and the guard read them: sentences with their words, numbers, names and vectors.

Reading is the costly part of judging a sentence, so what was read is kept by content. English word rules.
"""

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from math import fsum
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from graphs.sentences import split
from graphs.words import identifiers, numbers, stems, words

Vector = NDArray[np.float32]
RARITY_FILE = Path(__file__).with_name("rarity.json")
KEPT_PASSAGES = 512  # about 15 MB with eight sentences each


class Embedder(Protocol):
    """What reading needs of an embedder."""

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (texts, dimensions)."""
        ...


class Rarity:
    """How much a stem tells: its inverse document frequency in everyday and operations English, from 0 up."""

    def __init__(self, known: Mapping[str, float], unknown: float) -> None:
        self._known = known
        self._unknown = unknown

    @classmethod
    @cache
    def load(cls, path: Path = RARITY_FILE) -> "Rarity":
        table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(table["known"], float(table["unknown"]))

    def of(self, stem: str) -> float:
        return self._known.get(stem, self._unknown)

    def total(self, found: frozenset[str]) -> float:
        return fsum(self.of(stem) for stem in found)  # exact, so the order of a set cannot show


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and its place in its passage's text; `plain` is its words between spaces, `vector` has unit length."""

    text: str
    plain: str
    start: int
    end: int
    order: tuple[str, ...]
    stems: frozenset[str]
    numbers: frozenset[str]
    identifiers: frozenset[str]
    vector: Vector


@dataclass(frozen=True, slots=True)
class Reading:
    """A passage, read."""

    text: str
    plain: str
    sentences: tuple[Sentence, ...]
    stems: frozenset[str]
    numbers: frozenset[str]
    identifiers: frozenset[str]


class Reader:
    """Reads texts with one call of the embedder, and none for passages that it has read lately."""

    def __init__(self, embedder: Embedder, *, keep: int = KEPT_PASSAGES) -> None:
        self._embedder = embedder
        self._keep = keep
        self._kept: OrderedDict[bytes, Reading] = OrderedDict()

    async def read(self, texts: Sequence[str], passages: Sequence[str]) -> tuple[list[Sentence], list[Reading]]:
        """Each of `texts` as one sentence, each of `passages` split into its sentences; same order as given."""
        keys = [sha256(passage.encode("utf-8", "surrogatepass")).digest() for passage in passages]
        # Taken now: while the embedder works, another call may push them out.
        kept = {key: self._kept[key] for key in keys if key in self._kept}
        fresh = {key: passage for key, passage in zip(keys, passages, strict=True) if key not in kept}
        spans = {key: split(passage) for key, passage in fresh.items()}
        pieces = [fresh[key][start:end] for key in fresh for start, end in spans[key]]
        wanted = [*texts, *pieces]
        vectors = iter(await self._embedder.embed(wanted) if wanted else ())
        asked = [_sentence(text, 0, len(text), next(vectors)) for text in texts]
        kept |= {
            key: _reading(passage, [_sentence(passage[a:b], a, b, next(vectors)) for a, b in spans[key]])
            for key, passage in fresh.items()
        }
        readings = [kept[key] for key in keys]
        for key, reading in zip(keys, readings, strict=True):
            self._kept[key] = reading
            self._kept.move_to_end(key)
        while len(self._kept) > self._keep:
            self._kept.popitem(last=False)
        return asked, readings


def _plain(text: str) -> str:
    return f" {' '.join(words(text))} "


def _sentence(text: str, start: int, end: int, vector: Vector) -> Sentence:
    order = tuple(stems(text))
    return Sentence(text, _plain(text), start, end, order, frozenset(order), numbers(text), identifiers(text), vector)


def _reading(text: str, sentences: Sequence[Sentence]) -> Reading:
    return Reading(
        text,
        _plain(text),
        tuple(sentences),
        frozenset().union(*(sentence.stems for sentence in sentences)),
        frozenset().union(*(sentence.numbers for sentence in sentences)),
        frozenset().union(*(sentence.identifiers for sentence in sentences)),
    )
