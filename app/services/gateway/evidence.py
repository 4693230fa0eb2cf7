"""What the extractive answerer sees of a question and a sentence that may answer it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.reading import Rarity, Reading, Sentence
from app.services.gateway.asked import KINDS, asked_for, fits
from graphs.types import Passage
from graphs.words import stems

SENTENCE_FEATURES: Final = (
    "share", "share_with_neighbour", "share_in_passage", "share_behind_best", "share_in_heading", "cosine",
    "cosine_behind_best", "cosine_of_neighbour", "cosine_in_passage", "rank", "position", "length", "news", "names",
    "numbers", "order", "rarest", *(f"fits_{kind}" for kind in KINDS),
)  # fmt: skip
ANSWER_FEATURES: Final = (
    "best", "second", "above_even", "share", "share_with_neighbour", "share_in_passage", "share_in_all",
    "rarest_absent", "cosine", "names_absent", "numbers_absent", "fits", "typed", "length_of_question",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Candidate:
    """A sentence that may be quoted: which passage, which sentence of it."""

    passage: int
    place: int
    sentence: Sentence


# Headings, data in braces, continued options of a command, and the second half of a sentence that a chunk cut.
_NO_ANSWER: Final = re.compile(r"#|[{}\[\]]|--?\w|[\"']\w+[\"']:")


def candidates(readings: Sequence[Reading]) -> list[Candidate]:
    """Sentences that can stand as an answer: no headings, questions or data, none twice (chunks may overlap)."""
    seen: set[str] = set()
    found = []
    for number, reading in enumerate(readings):
        for place, sentence in enumerate(reading.sentences):
            text = sentence.text
            cut = place == 0 and text[0].islower()
            if cut or text.endswith("?") or _NO_ANSWER.match(text) or not sentence.stems or sentence.plain in seen:
                continue
            seen.add(sentence.plain)
            found.append(Candidate(number, place, sentence))
    return found


def sentence_features(
    question: Sentence,
    passages: Sequence[Passage],
    readings: Sequence[Reading],
    found: Sequence[Candidate],
    rarity: Rarity,
) -> NDArray[np.float64]:
    """Shape (candidates, SENTENCE_FEATURES). Passages are in the order of their ranks."""
    weight = rarity.total(question.stems) or 1.0

    def share(stems: frozenset[str]) -> float:
        return rarity.total(question.stems & stems) / weight

    kind = asked_for(question.text)
    cosines = [[float(question.vector @ each.vector) for each in reading.sentences] for reading in readings]
    headings = [frozenset(stems(f"{passage.title} {passage.heading}")) for passage in passages]
    wide = [share(reading.stems | heading) for reading, heading in zip(readings, headings, strict=True)]
    high = max((cosines[each.passage][each.place] for each in found), default=0.0)
    shares = [share(each.sentence.stems) for each in found]
    top = max(shares, default=0.0)
    wanted = set(pairwise(question.order))
    rarest = max((rarity.of(stem) for stem in question.stems), default=1.0) or 1.0
    rows = []
    for each, own in zip(found, shares, strict=True):
        around = readings[each.passage].sentences
        near = [place for place in (each.place - 1, each.place + 1) if 0 <= place < len(around)]
        before = around[each.place - 1].stems if each.place else frozenset()
        order = each.sentence.order
        given = {(a, b) for index, a in enumerate(order) for b in order[index + 1 : index + 4]}
        cosine = cosines[each.passage][each.place]
        held = question.stems & each.sentence.stems
        rows.append(
            [
                own,
                share(each.sentence.stems | before | headings[each.passage]),
                wide[each.passage],
                own - top,
                share(headings[each.passage]),
                cosine,
                cosine - high,
                max((cosines[each.passage][place] for place in near), default=0.0),
                max(cosines[each.passage]),
                1.0 / (1 + each.passage),
                1.0 / (1 + each.place),
                float(np.log1p(len(order))),
                float(np.log1p(len(each.sentence.stems - question.stems))),
                _held(question.identifiers, each.sentence.identifiers),
                _held(question.numbers, each.sentence.numbers),
                len(wanted & given) / len(wanted) if wanted else 0.0,
                max((rarity.of(stem) for stem in held), default=0.0) / rarest,
                *((1.0 if fits(kind, question, each.sentence) else -1.0) if kind == one else 0.0 for one in KINDS),
            ]
        )
    return np.array(rows).reshape(len(found), len(SENTENCE_FEATURES))


def answer_features(
    question: Sentence,
    readings: Sequence[Reading],
    rows: NDArray[np.float64],
    logits: NDArray[np.float64],
    rarity: Rarity,
) -> NDArray[np.float64]:
    """Shape (1, ANSWER_FEATURES): what speaks for and against an answer being there at all."""
    ranked = np.argsort(-logits)
    best = dict(zip(SENTENCE_FEATURES, rows[ranked[0]], strict=True))
    everything = frozenset().union(*(reading.stems for reading in readings))
    names = frozenset().union(*(reading.identifiers for reading in readings))
    numbers = frozenset().union(*(reading.numbers for reading in readings))
    weight = rarity.total(question.stems) or 1.0
    rarest = max((rarity.of(stem) for stem in question.stems), default=1.0) or 1.0
    typed = [best[name] for name in SENTENCE_FEATURES if name.startswith("fits_")]
    return np.array(
        [
            [
                logits[ranked[0]],
                logits[ranked[1]] if len(ranked) > 1 else -8.0,
                float(np.log1p((logits > 0).sum())),
                best["share"],
                best["share_with_neighbour"],
                best["share_in_passage"],
                rarity.total(question.stems & everything) / weight,
                max((rarity.of(stem) for stem in question.stems - everything), default=0.0) / rarest,
                best["cosine"],
                1.0 - _held(question.identifiers, names) if question.identifiers else 0.0,
                1.0 - _held(question.numbers, numbers) if question.numbers else 0.0,
                sum(typed),
                float(any(typed)),
                float(np.log1p(len(question.order))),
            ]
        ]
    )


def _held(wanted: frozenset[str], given: frozenset[str]) -> float:
    return len(wanted & given) / len(wanted) if wanted else 0.0
