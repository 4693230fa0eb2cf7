"""Markdown and plain text: the text stays as written, only its structure is found."""

import re

from app.services.ingest.document import Block, Outline, ParsedDocument, normalise

_FRONT_MATTER = re.compile(r"\A---\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"^title:[ \t]*(.+)$", re.MULTILINE)
# From a sign on: looking for the line's start first takes quadratic time over a long line of blanks.
PARAGRAPH = re.compile(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*")
_WHOLE = {"fence", "code_block", "table_open", "html_block"}
_PARTS = {"paragraph_open", "list_item_open", *_WHOLE}


def parse_text(text: str) -> ParsedDocument:
    """Paragraphs are what blank lines part."""
    text = normalise(text)
    blocks = tuple(Block(found.start(), found.end()) for found in PARAGRAPH.finditer(text))
    return ParsedDocument("", text, blocks, "text/plain")


def parse_markdown(text: str) -> ParsedDocument:
    """Front matter gives the title and is in no block; failing that, the first heading of level 1 does."""
    from markdown_it import MarkdownIt  # Lazy: plain text and JSON need none of it.

    text = normalise(text)
    front = _FRONT_MATTER.match(text)
    body = front.end() if front else 0
    starts = _line_starts(text, body)
    # Block structure alone: reading emphasis and links costs most of the time and moves no block.
    tokens = MarkdownIt("commonmark").enable("table").disable("inline").parse(text[body:])
    headings = [
        (token.map[0], int(token.tag[1]), tokens[i + 1].content)
        for i, token in enumerate(tokens)
        if token.type == "heading_open" and token.map
    ]
    title = _front_title(front.group(0)) if front else ""
    title = title or next((heading for _, level, heading in headings if level == 1), "")
    outline, blocks, line = Outline(title), list[Block](), 0
    for i, token in enumerate(tokens):
        if token.map is None or token.map[0] < line:
            continue  # inside a block that is already taken
        if token.type == "heading_open":
            outline.enter(int(token.tag[1]), tokens[i + 1].content)
            line = token.map[1]
        elif token.type in _PARTS:
            line = token.map[1]
            start, end = _trimmed(text, starts[token.map[0]], starts[line])
            if start < end:
                blocks.append(Block(start, end, outline.path, token.type in _WHOLE))
    return ParsedDocument(title, text, tuple(blocks), "text/markdown")


def _front_title(front: str) -> str:
    found = _TITLE.search(front)
    return found.group(1).strip().strip("\"'") if found else ""


def _line_starts(text: str, first: int) -> list[int]:
    """Offsets of the lines from `first` on, and of the end for every line number that may follow them."""
    starts = [first, *(found.end() for found in re.finditer("\n", text[first:]))]
    starts[1:] = [first + start for start in starts[1:]]
    return [*starts, len(text), len(text)]


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
