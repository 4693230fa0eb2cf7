"""Citations from measured support: pure functions."""

from collections.abc import Sequence

from graphs.sentences import split
from graphs.types import Citation, Passage, SentenceSupport

CITATIONS_PER_SENTENCE = 2
# A second passage is cited beside the best only if it supports the sentence nearly as well.
NEAR_BEST = 0.9


def attach(
    answer: str,
    spans: Sequence[tuple[int, int]],
    passages: Sequence[Passage],
    scores: Sequence[Sequence[float]],
    *,
    threshold: float,
) -> tuple[tuple[SentenceSupport, ...], tuple[Citation, ...]]:
    """Sentences with their support, and the passages they cite, numbered in order of first use from 1.

    `scores` has shape (sentences, passages), in [0, 1]. A sentence is supported when its best passage reaches
    `threshold`; only supported sentences cite.
    """
    numbers: dict[int, int] = {}
    strongest: dict[int, tuple[float, str]] = {}
    sentences = []
    for (start, end), row in zip(spans, scores, strict=True):
        best = max(row, default=0.0)
        supported = best >= threshold
        cited = _cited(row, best, threshold) if supported else []
        text = answer[start:end]
        for index in cited:
            numbers.setdefault(index, len(numbers) + 1)
            if row[index] > strongest.get(index, (-1.0, ""))[0]:
                strongest[index] = (row[index], text)
        sentences.append(
            SentenceSupport(text, start, end, round(best, 4), supported, tuple(numbers[index] for index in cited))
        )
    citations = [_citation(number, passages[index], *strongest[index]) for index, number in numbers.items()]
    return tuple(sentences), tuple(citations)


def _cited(row: Sequence[float], best: float, threshold: float) -> list[int]:
    ranked = sorted(range(len(row)), key=lambda index: -row[index])
    floor = max(threshold, best * NEAR_BEST)
    return [index for index in ranked[:CITATIONS_PER_SENTENCE] if row[index] >= floor]


def _citation(number: int, passage: Passage, score: float, sentence: str) -> Citation:
    start, end = quote_span(passage.text, sentence)
    return Citation(
        number=number,
        chunk_id=passage.chunk_id,
        document_id=passage.document_id,
        title=passage.title,
        heading=passage.heading,
        quote=passage.text[start:end],
        start=passage.start + start,
        end=passage.start + end,
        score=round(score, 4),
        collection=passage.collection,
    )


def quote_span(text: str, sentence: str) -> tuple[int, int]:
    """Where in `text` the sentence is best found: verbatim, else the sentence of `text` that shares most words."""
    found = text.find(sentence)
    if found >= 0:
        return found, found + len(sentence)
    words = set(sentence.casefold().split())
    spans = split(text) or [(0, len(text))]
    return max(spans, key=lambda span: len(words & set(text[span[0] : span[1]].casefold().split())))
