"""What chunkers cut with: an estimate of tokens, and ways to split a stretch of text that is too long."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from app.services.ingest.document import Block, Place

TARGET_TOKENS = 200  # the embedder reads 256, title and heading included

# About a WordPiece: six letters or digits, a CJK character, any other sign.
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]{{1,6}}|[^\w\s]|_")
# From a sign on: looking for the line's start first takes quadratic time over a long line of blanks.
LINE = re.compile(r"\S[^\n]*")
# Up to a mark that ends a sentence, the next list item, or the end of the block.
SENTENCE = re.compile(
    r"""\S.*?(?: [.!?]["')\]]*(?=\s) | [。！？] | \Z | (?=\n[ \t]*(?:[-*+]|\d{1,9}[.)])\s) )""", re.DOTALL | re.VERBOSE
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text` is exactly `document.text[start:end]`. `place` says where in the original that is, as far as it is known:
    page, slide, sheet, row and lastRow, counted from 1."""

    text: str
    start: int
    end: int
    heading: str
    place: Mapping[str, str | int] = field(default_factory=dict)


def count_tokens(text: str) -> int:
    """An estimate, without the embedder's tokenizer: within a fifth of it on English pages."""
    return sum(1 for _ in _TOKEN.finditer(text))


def split(text: str, block: Block, splitters: Sequence[re.Pattern[str]], limit_tokens: int) -> Iterator[Block]:
    """Parts of at most that many tokens: by the first splitter where that is enough, by the next where it is not."""
    if count_tokens(text[block.start : block.end]) <= limit_tokens:
        yield block
    elif not splitters:
        yield from runs(text, block, limit_tokens)
    else:
        row, counted = block.place.row, block.start
        for found in splitters[0].finditer(text, block.start, block.end):
            if row:
                row, counted = row + text.count("\n", counted, found.start()), found.start()
            end = found.start() + len(found.group().rstrip())
            part = replace(block, start=found.start(), end=end, place=replace(block.place, row=row))
            yield from split(text, part, splitters[1:], limit_tokens)


def runs(text: str, block: Block, limit_tokens: int) -> Iterator[Block]:
    """That many tokens at a time: between words, or inside one that is longer than that."""
    start, word, tokens, in_word = block.start, block.start, 0, 0
    for token in _TOKEN.finditer(text, block.start, block.end):
        if text[token.start() - 1].isspace():
            word, in_word = token.start(), 0
        if tokens == limit_tokens:
            cut, tokens = (word, in_word) if word > start else (token.start(), 0)
            yield replace(block, start=start, end=start + len(text[start:cut].rstrip()))
            start, word, in_word = cut, cut, tokens
        tokens, in_word = tokens + 1, in_word + 1
    yield replace(block, start=start)


def last_tokens(text: str, start: int, end: int, count: int) -> int:
    """Where the last `count` tokens of the stretch begin; `start` if it holds no more than that."""
    starts = [token.start() for token in _TOKEN.finditer(text, start, end)]
    return starts[-count] if len(starts) > count else start


def place_of(text: str, first: Block, last: Block) -> dict[str, str | int]:
    """The place of a chunk that reaches from one part to another; rows only where both have them."""
    named: Place = first.place
    place: dict[str, str | int] = {}
    if named.page:
        place["page"] = named.page
    if named.slide:
        place["slide"] = named.slide
    if named.sheet:
        place["sheet"] = named.sheet
    if named.row and last.place.row:
        lines = text.count("\n", last.start, last.end) if last.whole else 0
        place |= {"row": named.row, "lastRow": last.place.row + lines}
    return place
