"""Chunks along headings and paragraphs; tables and code stay whole where they fit."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from app.services.ingest.document import Block, ParsedDocument
from app.services.ingest.pieces import LINE, SENTENCE, TARGET_TOKENS, Chunk, count_tokens, place_of, split

WHOLE = 2  # times as long as other chunks a table or code may be in one piece: half a table answers nothing
WHOLE_TOKENS = WHOLE * TARGET_TOKENS


def by_structure(document: ParsedDocument, size_tokens: int, _overlap_tokens: int) -> list[Chunk]:
    """In order, not overlapping. Headings name chunks and are in none, but in a document of headings alone."""
    blocks = document.blocks or _everything(document.text)
    chunks: list[Chunk] = []
    for _, section in groupby(blocks, key=lambda block: block.heading):
        for first, last in _packed(document.text, list(section), size_tokens):
            text = document.text[first.start : last.end]
            chunks.append(Chunk(text, first.start, last.end, first.heading, place_of(document.text, first, last)))
    return chunks


def _packed(text: str, section: Sequence[Block], size_tokens: int) -> Iterator[tuple[Block, Block]]:
    """The first and the last part of stretches of up to that size."""
    held: tuple[Block, Block] | None = None
    tokens = 0
    for part in (part for block in section for part in _parts(text, block, size_tokens)):
        size = count_tokens(text[part.start : part.end])
        # What stands between two parts is in the chunk too, be it a heading that is too long to be a name.
        between = count_tokens(text[held[1].end : part.start]) if held else 0
        if held and tokens + between + size > size_tokens:
            yield held
            held, tokens, between = None, 0, 0
        held, tokens = (held[0] if held else part, part), tokens + between + size
    if held:
        yield held


def _parts(text: str, block: Block, size_tokens: int) -> Iterator[Block]:
    """The block, or its lines (tables, code), sentences, and at last runs of words, as far as its size asks for it."""
    limit = WHOLE * size_tokens if block.whole else size_tokens
    if count_tokens(text[block.start : block.end]) <= limit:
        yield block
        return
    for part in split(text, block, (LINE,) if block.whole else (SENTENCE, LINE), size_tokens):
        later = block.columns and part.start > block.start
        yield replace(part, heading=_joined(block.heading, block.columns)) if later else part


def _joined(heading: str, columns: str) -> str:
    """How the later parts of a long table are headed: without its columns' names their cells say nothing."""
    return f"{heading} > {columns}" if heading else columns


def _everything(text: str) -> Sequence[Block]:
    inner = text.strip()
    start = text.find(inner)
    return [Block(start, start + len(inner))] if inner else []
