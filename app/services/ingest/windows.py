"""Chunks that slide over the whole text, headings included, each beginning with the end of the one before."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace

from app.services.ingest.document import Block, ParsedDocument
from app.services.ingest.markdown import PARAGRAPH
from app.services.ingest.pieces import (
    LINE,
    SENTENCE,
    Chunk,
    count_tokens,
    last_tokens,
    place_of,
    runs,
    split,
)

OVERLAP_TOKENS = 40


def by_sentences(document: ParsedDocument, size_tokens: int, overlap_tokens: int) -> list[Chunk]:
    """As many sentences as fit, of which up to `overlap_tokens` come again; paragraphs end sentences."""
    text = document.text
    sentences: list[tuple[Block, int]] = []
    chunks: list[tuple[int, int]] = []
    tokens = 0
    for sentence in _sentences(text, size_tokens):
        size = count_tokens(text[sentence.start : sentence.end])
        if sentences and tokens + size > size_tokens:
            chunks.append((sentences[0][0].start, sentences[-1][0].end))
            sentences = _tail(sentences, min(overlap_tokens, size_tokens - size))
            tokens = sum(held for _, held in sentences)
        sentences.append((sentence, size))
        tokens += size
    if sentences:
        chunks.append((sentences[0][0].start, sentences[-1][0].end))
    return _chunks(document, chunks)


def by_tokens(document: ParsedDocument, size_tokens: int, overlap_tokens: int) -> list[Chunk]:
    """So many tokens each, of which `overlap_tokens` are the end of the chunk before."""
    text = document.text
    spans: list[tuple[int, int]] = []
    inner = text.strip()
    if inner:
        start = text.find(inner)
        everything = Block(start, start + len(inner))
        before = start
        for run in runs(text, everything, size_tokens - overlap_tokens):
            first = last_tokens(text, before, run.start, overlap_tokens) if overlap_tokens else run.start
            spans.append((first, run.end))
            before = run.start
    return _chunks(document, spans)


def _sentences(text: str, limit_tokens: int) -> Iterator[Block]:
    for found in PARAGRAPH.finditer(text):
        for sentence in SENTENCE.finditer(text, found.start(), found.end()):
            end = sentence.start() + len(sentence.group().rstrip())
            yield from split(text, Block(sentence.start(), end), (LINE,), limit_tokens)


def _tail(sentences: Sequence[tuple[Block, int]], limit_tokens: int) -> list[tuple[Block, int]]:
    tail: list[tuple[Block, int]] = []
    for sentence, size in reversed(sentences):
        limit_tokens -= size
        if limit_tokens < 0:
            break
        tail.insert(0, (sentence, size))
    return tail


def _chunks(document: ParsedDocument, spans: Sequence[tuple[int, int]]) -> list[Chunk]:
    """Headed and placed as the first block that they touch; rows are not told, since windows begin inside of them."""
    ends = [block.end for block in document.blocks]
    chunks = []
    for start, end in spans:
        found = bisect_right(ends, start)
        block = document.blocks[min(found, len(ends) - 1)] if ends else Block(start, end)
        place = place_of(document.text, replace(block, place=replace(block.place, row=0)), block)
        chunks.append(Chunk(document.text[start:end], start, end, block.heading, place))
    return chunks
