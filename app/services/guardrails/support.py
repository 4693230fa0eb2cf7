"""How far a passage supports a sentence, in [0, 1], by a small trained model over words, numbers, names and vectors.

A verbatim quote is supported in full. It measures presence and nearness, not logic: a claim whose words all stand in
one sentence of the passage, wrongly combined or negated in other words, still scores high. On data held out it does not
tell contradictions from support at all, and wrong answers from right ones poorly (benchmarks/support.py).
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.reading import Embedder, Rarity, Reader, Reading, Sentence
from app.scorer import Scorer, read_weights
from graphs.types import Passage
from graphs.words import stem

__all__ = ["FEATURES", "Embedder", "SupportModel", "features"]

WEIGHTS_FILE = Path(__file__).with_name("support_weights.json")
QUOTE_WORDS = 3  # shorter quotes ("No.", "Yes, it is") stand in many passages by accident

FEATURES: Final = (
    "best_sentence", "best_pair", "passage", "pair_gain", "numbers_absent", "numbers_apart", "names_absent",
    "names_apart", "cosine", "cosine_there", "order", "rarest_absent", "rarest_apart", "negation", "direction",
    "capitals_apart", "length",
)  # fmt: skip
_NEGATION: Final = re.compile(
    r"\b(?:not|no|never|none|neither|nor|without|cannot|lacks?|fail(?:s|ed)?)\b|n't\b", re.IGNORECASE
)
_NAME: Final = re.compile(r"(?<=[\w,;:] )[A-Z]\w+")
# Stems of words that say which way something goes; one of each in claim and evidence contradict.
_UP: Final = re.compile(r"\b(?:increas|rais|high|more|great|enhanc|promot|activ|induc|gain|posit|improv|enabl|accept)")
_DOWN: Final = re.compile(
    r"\b(?:decreas|reduc|low|less|few|impair|inhibit|suppress|los[st]|negativ|worse|disabl|reject)"
)


class SupportModel:
    """Scores sentences against passages; one embedding call for all that is new."""

    def __init__(self, embedder: Embedder, weights: Path = WEIGHTS_FILE) -> None:
        trained: dict[str, Any] = read_weights(weights)
        self.threshold: float = float(trained["threshold"])
        self._scorer = Scorer.parse(trained["support"], FEATURES)
        self._reader = Reader(embedder)
        self._rarity = Rarity.load()

    async def score(self, sentences: Sequence[str], passages: Sequence[Passage]) -> list[list[float]]:
        """Support in [0, 1], shape (sentences, passages)."""
        if not sentences or not passages:
            return [[0.0] * len(passages) for _ in sentences]
        claims, readings = await self._reader.read(sentences, [passage.text for passage in passages])
        rows = np.array([features(claim, reading, self._rarity) for claim in claims for reading in readings])
        scores = self._scorer.probability(rows).reshape(len(claims), len(readings))
        for index, claim in enumerate(claims):
            for place, reading in enumerate(readings):
                if not reading.sentences or not claim.stems:
                    scores[index, place] = 0.0
                if _quotes(claim, reading):
                    scores[index, place] = 1.0
        return [[float(score) for score in row] for row in scores]


def _quotes(claim: Sentence, reading: Reading) -> bool:
    """Whether the claim is a sentence of the passage, or three words of it in a row; punctuation and layout aside."""
    if claim.plain.count(" ") > QUOTE_WORDS:
        return claim.plain in reading.plain
    return any(claim.plain == sentence.plain for sentence in reading.sentences) and bool(claim.stems)


def features(claim: Sentence, reading: Reading, rarity: Rarity) -> NDArray[np.float64]:
    """What the model sees of one claim and one passage; order as in FEATURES, mostly shares in [0, 1]."""
    weight = rarity.total(claim.stems) or 1.0
    shares = [rarity.total(claim.stems & sentence.stems) / weight for sentence in reading.sentences]
    if not shares:
        return np.zeros(len(FEATURES))
    best = int(np.argmax(shares))
    pairs = [rarity.total(claim.stems & (a.stems | b.stems)) / weight for a, b in pairwise(reading.sentences)] or [
        shares[best]
    ]
    pair = int(np.argmax(pairs))
    there = reading.sentences[best]
    near = reading.sentences[pair : pair + 2]
    near_stems = frozenset().union(*(sentence.stems for sentence in near))
    cosines = np.array([sentence.vector @ claim.vector for sentence in reading.sentences])
    absent = claim.stems - reading.stems
    apart = claim.stems - there.stems
    rarest = max((rarity.of(stem) for stem in claim.stems), default=1.0) or 1.0
    return np.array(
        [
            shares[best],
            max(pairs),
            rarity.total(claim.stems & reading.stems) / weight,
            max(pairs) - shares[best],
            _missing(claim.numbers, reading.numbers),
            _missing(claim.numbers, frozenset().union(*(sentence.numbers for sentence in near))),
            _missing(claim.identifiers, reading.identifiers),
            _missing(claim.identifiers, frozenset().union(*(sentence.identifiers for sentence in near))),
            float(cosines.max()),
            float(cosines[best]),
            _order(claim.order, there.order),
            max((rarity.of(stem) for stem in absent), default=0.0) / rarest,
            max((rarity.of(stem) for stem in apart), default=0.0) / rarest,
            float(bool(_NEGATION.search(claim.text)) != bool(_NEGATION.search(there.text))),
            float(_turns(claim.plain, there.plain)),
            _missing(_names(claim.text), near_stems),
            float(np.log1p(len(claim.order))),
        ]
    )


def _missing(wanted: frozenset[str], given: frozenset[str]) -> float:
    """The share of `wanted` that is not in `given`; 0 when nothing is wanted."""
    return len(wanted - given) / len(wanted) if wanted else 0.0


def _names(text: str) -> frozenset[str]:
    """Stems of capitalised words that do not open the text."""
    return frozenset(stem(name.lower()) for name in _NAME.findall(text))


def _order(claim: Sequence[str], other: Sequence[str]) -> float:
    """The share of the claim's neighbouring stems that are neighbours, in this order, within three words there."""
    wanted = set(pairwise(claim))
    given = {(a, b) for index, a in enumerate(other) for b in other[index + 1 : index + 4]}
    return len(wanted & given) / len(wanted) if wanted else 0.0


def _turns(claim: str, other: str) -> bool:
    """Whether one says up where the other says down, and does not say both."""
    claim_way, other_way = (bool(_UP.search(each)) - bool(_DOWN.search(each)) for each in (claim, other))
    return claim_way * other_way < 0
