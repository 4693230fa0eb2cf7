"""A document to the pieces that are searched and cited: along its headings and paragraphs, about 200 tokens each."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from app.services.ingest.document import Block, ParsedDocument

TARGET_TOKENS = 200  # the embedder reads 256, title and heading included
WHOLE_TOKENS = 400  # a table or code up to here stays in one piece: half a table answers nothing

# About a WordPiece: six letters or digits, a CJK character, any other sign.
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]{{1,6}}|[^\w\s]|_")
_LINE = re.compile(r"[^\n]*\S[^\n]*")
# Up to a mark that ends a sentence, the next list item, or the end of the block.
_SENTENCE = re.compile(
    r"""\S.*?(?: [.!?]["')\]]*(?=\s) | [。！？] | \Z | (?=\n[ \t]*(?:[-*+]|\d{1,9}[.)])\s) )""", re.DOTALL | re.VERBOSE
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text` is exactly `document.text[start:end]`."""

    text: str
    start: int
    end: int
    heading: str


def chunk(document: ParsedDocument) -> list[Chunk]:
    """In order, not overlapping. A document of headings alone is one stretch of text; an empty one gives no chunk."""
    blocks = document.blocks or _everything(document.text)
    chunks: list[Chunk] = []
    for heading, section in groupby(blocks, key=lambda block: block.heading):
        for start, end in _packed(document.text, list(section)):
            chunks.append(Chunk(document.text[start:end], start, end, heading))
    return chunks


def count_tokens(text: str) -> int:
    """An estimate, without the embedder's tokenizer: within a fifth of it on English pages."""
    return sum(1 for _ in _TOKEN.finditer(text))


def _packed(text: str, section: Sequence[Block]) -> Iterator[tuple[int, int]]:
    """Spans of up to TARGET_TOKENS, each from the start of one part to the end of another."""
    start = end = tokens = 0
    for part in (part for block in section for part in _parts(text, block)):
        size = count_tokens(text[part.start : part.end])
        if tokens and tokens + size > TARGET_TOKENS:
            yield start, end
            tokens = 0
        start, end, tokens = (start if tokens else part.start), part.end, tokens + size
    if end > start:
        yield start, end


def _parts(text: str, block: Block) -> Iterator[Block]:
    """The block, or its lines (tables, code), sentences, and at last runs of words, as far as its size asks for it."""
    limit = WHOLE_TOKENS if block.whole else TARGET_TOKENS
    if count_tokens(text[block.start : block.end]) <= limit:
        yield block
        return
    yield from _split(text, block, (_LINE,) if block.whole else (_SENTENCE, _LINE))


def _split(text: str, block: Block, splitters: Sequence[re.Pattern[str]]) -> Iterator[Block]:
    if count_tokens(text[block.start : block.end]) <= TARGET_TOKENS:
        yield block
    elif not splitters:
        yield from _runs(text, block)
    else:
        for found in splitters[0].finditer(text, block.start, block.end):
            end = found.start() + len(found.group().rstrip())
            yield from _split(text, replace(block, start=found.start(), end=end), splitters[1:])


def _runs(text: str, block: Block) -> Iterator[Block]:
    """TARGET_TOKENS at a time: between words, or inside one that is longer than that."""
    start, word, tokens, in_word = block.start, block.start, 0, 0
    for token in _TOKEN.finditer(text, block.start, block.end):
        if text[token.start() - 1].isspace():
            word, in_word = token.start(), 0
        if tokens == TARGET_TOKENS:
            cut, tokens = (word, in_word) if word > start else (token.start(), 0)
            yield replace(block, start=start, end=start + len(text[start:cut].rstrip()))
            start, word, in_word = cut, cut, tokens
        tokens, in_word = tokens + 1, in_word + 1
    yield replace(block, start=start)


def _everything(text: str) -> Sequence[Block]:
    inner = text.strip()
    start = text.find(inner)
    return [Block(start, start + len(inner))] if inner else []
