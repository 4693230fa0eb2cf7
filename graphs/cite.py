"""Citations from measured support: pure functions."""

import re
from collections.abc import Sequence

from graphs.sentences import Span, split
from graphs.types import Citation, Passage, SentenceSupport

CITATIONS_PER_SENTENCE = 2
# A second passage is cited beside the best only if it supports the sentence nearly as well.
NEAR_BEST = 0.9
_LETTER = re.compile(r"[^\W\d_]")
_ITEM_BEFORE = re.compile(r"[ \t]*(?:[-*+•]|\d{1,3}[.)]|[a-z][.)]|>)?[ \t]*\Z")
_REST_OF_LINE = re.compile(r"[ \t]*(?:\n|\Z)")


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
    strongest: dict[int, float] = {}
    quoted: dict[int, list[tuple[float, Span]]] = {}
    sentences = []
    for (start, end), row in zip(spans, scores, strict=True):
        best = max(row, default=0.0)
        supported = best >= threshold
        cited = _cited(row, best, threshold) if supported else []
        text = answer[start:end]
        for index in cited:
            numbers.setdefault(index, len(numbers) + 1)
            strongest[index] = max(row[index], strongest.get(index, 0.0))
            quoted.setdefault(index, []).append((row[index], quote_span(passages[index].text, text)))
        sentences.append(
            SentenceSupport(text, start, end, round(best, 4), supported, tuple(numbers[index] for index in cited))
        )
    citations = [
        _citation(number, passages[index], strongest[index], stretch(passages[index].text, quoted[index]))
        for index, number in numbers.items()
    ]
    return tuple(sentences), tuple(citations)


def _cited(row: Sequence[float], best: float, threshold: float) -> list[int]:
    ranked = sorted(range(len(row)), key=lambda index: -row[index])
    floor = max(threshold, best * NEAR_BEST)
    return [index for index in ranked[:CITATIONS_PER_SENTENCE] if row[index] >= floor]


def _citation(number: int, passage: Passage, score: float, span: Span) -> Citation:
    start, end = span
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


def stretch(text: str, quoted: Sequence[tuple[float, Span]]) -> Span:
    """The best supported span, with those beside it: a sentence and the list that it leads in are one quote.

    Spans are beside each other when no letter stands between them.
    """
    runs: list[Span] = []
    for start, end in sorted(span for _, span in quoted):
        if runs and not _LETTER.search(text, runs[-1][1], start):
            runs[-1] = (runs[-1][0], max(end, runs[-1][1]))
        else:
            runs.append((start, end))
    _, best = max(quoted, key=lambda each: (each[0], each[1][1] - each[1][0]))
    return next(run for run in runs if run[0] <= best[0] and best[1] <= run[1])


def quote_span(text: str, sentence: str) -> Span:
    """Where in `text` the sentence is best found: verbatim, else the sentence of `text` that shares most words."""
    found = text.find(sentence)
    if found >= 0:
        return found, found + len(sentence)
    words = set(sentence.casefold().split())
    spans = split(text) or [(0, len(text))]
    return max(spans, key=lambda span: len(words & set(text[span[0] : span[1]].casefold().split())))


def without(answer: str, spans: Sequence[Span]) -> str:
    """The answer without those sentences, and without the list items and lines that they were all of."""
    parts: list[str] = []
    at = 0
    for start, end in _joined(answer, spans):
        line = max(answer.rfind("\n", 0, start) + 1, at)
        last = _REST_OF_LINE.match(answer, end)
        if last and _ITEM_BEFORE.match(answer, line, start):
            parts.append(answer[at:line])
            at = last.end()
        else:
            before = answer[at:start]
            parts.append(before.rstrip(" \t") if last else before)
            at = end if last else len(answer) - len(answer[end:].lstrip(" \t"))
    return "".join([*parts, answer[at:]]).strip()


def _joined(answer: str, spans: Sequence[Span]) -> list[Span]:
    """In order, those with nothing but space between them on one line as one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        between = answer[joined[-1][1] : start] if joined else "\n"
        if not between.strip(" \t"):
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
