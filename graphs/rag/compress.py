"""Passages cut to a token budget: when not all of them fit whole, the sentences that touch the question least go.

What is left of a passage stays a passage: each run of kept sentences is one, and its offsets still count in the
document, so that a quote from it is found there. Pure functions.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from graphs.sentences import split
from graphs.types import Passage
from graphs.words import stems

NEIGHBOUR_SHARE = 0.5  # what a sentence gets of the worth of the one beside it, which it often explains
RANK_DISCOUNT = 0.9  # of a passage's sentences against those of the passage before it

_UNSPACED = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff]+")  # Thai, Lao, kana, Han


@dataclass(frozen=True, slots=True)
class Sentence:
    """Whose it is, where it stands in that passage's text, and what it is worth to the question."""

    passage: int
    place: int
    start: int
    end: int
    worth: float


def compress(
    passages: Sequence[Passage], question: str, *, budget_tokens: int, cost: Callable[[Passage], int]
) -> tuple[Passage, ...]:
    """All of them unchanged where they fit; else pieces of them within the budget, in the order of the passages.

    `cost` is what a passage takes in the prompt, its title and number included.
    """
    if sum(map(cost, passages)) <= budget_tokens:
        return tuple(passages)
    kept: dict[tuple[int, int], Sentence] = {}
    left = budget_tokens
    for sentence in sorted(_sentences(passages, question), key=lambda each: (-each.worth, each.passage, each.place)):
        whole = passages[sentence.passage]
        before, after = (kept.get((sentence.passage, sentence.place + step)) for step in (-1, 1))
        # Beside a kept one it makes a piece longer, by what stands between them too; alone it opens a piece, with title
        # and number again.
        frame = cost(replace(whole, text="")) if before or after else 0
        start, end = before.end if before else sentence.start, after.start if after else sentence.end
        price = cost(_piece(whole, start, end)) - frame
        if price <= left:
            left -= price
            kept[sentence.passage, sentence.place] = sentence
    return tuple(_pieces(passages, [kept[key] for key in sorted(kept)]))


def _sentences(passages: Sequence[Passage], question: str) -> Iterator[Sentence]:
    """Worth is the rarity, among all sentences here, of the question's words in a sentence."""
    spans = [split(passage.text) for passage in passages]
    found = [
        [_terms(passage.text[start:end]) for start, end in places]
        for passage, places in zip(passages, spans, strict=True)
    ]
    held = Counter(word for each in found for words in each for word in words)
    asked = {word: math.log(1 + sum(map(len, spans)) / held[word]) for word in _terms(question) if held[word]}
    for number, (places, bags) in enumerate(zip(spans, found, strict=True)):
        own = [sum(asked.get(word, 0.0) for word in bag) for bag in bags]
        for place, (start, end) in enumerate(places):
            beside = max(own[max(place - 1, 0) : place] + own[place + 1 : place + 2], default=0.0)
            worth = max(own[place], NEIGHBOUR_SHARE * beside) * RANK_DISCOUNT**number
            yield Sentence(number, place, start, end, worth)


def _terms(text: str) -> set[str]:
    """Stems, and pairs of characters where a script sets no spaces between words."""
    pairs = {run[place : place + 2] for run in _UNSPACED.findall(text) for place in range(len(run) - 1)}
    return pairs.union(stems(text))


def _pieces(passages: Sequence[Passage], kept: Sequence[Sentence]) -> Iterator[Passage]:
    """One for each run of sentences that stand side by side in their passage."""
    first = 0
    for after, sentence in enumerate(kept, 1):
        following = kept[after] if after < len(kept) else None
        if following is None or (following.passage, following.place) != (sentence.passage, sentence.place + 1):
            yield _piece(passages[sentence.passage], kept[first].start, sentence.end)
            first = after


def _piece(passage: Passage, start: int, end: int) -> Passage:
    return replace(passage, text=passage.text[start:end], start=passage.start + start, end=passage.start + end)
