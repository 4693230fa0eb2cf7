"""How likely a text is to be an injection or a jailbreak, in [0, 1]: a small trained model over windows of it.

Of each window it sees the embedding, the signs (`signs.py`) and a few traits of the writing; the text scores as its
worst window. The embedder reads English, so windows in another language score 0 and are left to the signs; and an
instruction that asks for something harmless is not told from a question. Weights and figures:
benchmarks/train_injection.py. A score flags; it is no proof and protects nothing alone.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.reading import Embedder
from app.scorer import Scorer, read_weights
from app.services.guardrails.signs import NAMES, signs
from graphs.sentences import split

WEIGHTS_FILE: Final = Path(__file__).with_name("injection_weights.json")
WINDOW_CHARS: Final = 320  # some 80 tokens: in longer ones a sentence of attack drowns in the mean
MOST_WINDOWS: Final = 64
DIMENSIONS: Final = 384
TRAITS: Final = ("capitals", "marks", "exclaimed", "quoted", "fenced", "asked")
FEATURES: Final = (*(f"v{place}" for place in range(DIMENSIONS)), *NAMES, *TRAITS)

_WORD: Final = re.compile(r"[^\W\d_]+")
_WORDS_JUDGED: Final = 8  # fewer, and the lack of a common word says nothing: "restart nginx pod"


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


_ENGLISH: Final = _listed(
    "the of and to a in is it you that for on with as are be this was by at or from have an not what how can do i my"
    " your if which we will there all when who has should me does where any about"
)
_OTHER: Final = _listed(
    "der die das und ist nicht ein eine sie ich mit auf den dem für von wie le la les des et est une pour vous dans que"
    " qui pas sur au el los las y es en un una por con para del como il di che è per non sono della o os do da em não"
    " uma het van een niet"
)


class InjectionModel:
    """Scores texts; one call of the embedder for each text."""

    def __init__(self, embedder: Embedder, weights: Path = WEIGHTS_FILE) -> None:
        trained: dict[str, Any] = read_weights(weights)
        self.threshold: float = float(trained["threshold"])
        """From where a text is suspicious: one benign text in a hundred of the validation part was."""
        self._scorer = Scorer.parse(trained["injection"], FEATURES)
        self._embedder = embedder

    async def score(self, text: str) -> float:
        """Of the most suspicious window; 0 for an empty text."""
        pieces = windows(text)
        if not pieces:
            return 0.0
        vectors = await self._embedder.embed(pieces)
        if len(pieces) == 1:
            return self._worst(pieces, vectors)
        return await asyncio.to_thread(self._worst, pieces, vectors)

    def _worst(self, pieces: Sequence[str], vectors: NDArray[np.float32]) -> float:
        scores = self._scorer.probability(rows(pieces, vectors))
        return float(np.where([is_english(piece) for piece in pieces], scores, 0.0).max())


def is_english(text: str) -> bool:
    """Whether it may be: by the commonest words of English and of six languages that are written alike."""
    words = [word.lower() for word in _WORD.findall(text)]
    english = sum(word in _ENGLISH for word in words)
    return english >= sum(word in _OTHER for word in words) and (english > 0 or len(words) < _WORDS_JUDGED)


def windows(text: str) -> list[str]:
    """Whole sentences up to `WINDOW_CHARS` together, longer ones cut; a text that fits is one window as it stands.

    Of more than `MOST_WINDOWS` the first and the last are read: what is hidden in a long text stands at its ends.
    """
    if not text.strip():
        return []
    if len(text) <= WINDOW_CHARS:
        return [text]
    found: list[str] = []
    start = end = 0
    for piece_end in _ends(text):
        if end > start and piece_end - start > WINDOW_CHARS:
            found.append(text[start:end].strip())
            start = end
        end = piece_end
    found.append(text[start:end].strip())
    half = MOST_WINDOWS // 2
    whole = list(filter(None, found))
    return whole if len(whole) <= MOST_WINDOWS else [*whole[:half], *whole[-half:]]


def _ends(text: str) -> Iterator[int]:
    """Where sentences end, what stands between them included, and where one that is too long is cut."""
    start = 0
    for end in (*[begin for begin, _ in split(text)][1:], len(text)):
        yield from range(start + WINDOW_CHARS, end, WINDOW_CHARS)
        yield end
        start = end


def rows(pieces: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the model sees, shape (pieces, FEATURES)."""
    seen = np.array([[*(name in found for name in NAMES), *_traits(piece)] for piece, found in _signed(pieces)], float)
    return np.hstack([vectors.astype(np.float64), seen])


def _signed(pieces: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    return [(piece, signs(piece)) for piece in pieces]


def _traits(text: str) -> tuple[float, ...]:
    """How it is written; shares in [0, 1]."""
    size = len(text)
    letters = sum(map(str.isalpha, text)) or 1
    return (
        sum(map(str.isupper, text)) / letters,
        sum(not sign.isalnum() and not sign.isspace() for sign in text) / size,
        min(text.count("!"), 5) / 5,
        min(text.count('"') + text.count("'") + text.count("`"), 10) / 10,
        min(sum(map(text.count, "<>[]{}#*|")), 20) / 20,
        float(text.rstrip().endswith(("?", "？"))),
    )
