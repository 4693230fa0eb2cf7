"""What parsing gives: a document's normalised text and its structure as offsets into it."""

import re
import unicodedata
from dataclasses import dataclass, replace

_LINE_END = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
# Seen by a model but by no reader: zero-width marks, bidi overrides, tag characters. ZWJ and ZWNJ spell words and stay.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
_NO_TITLES = {
    *("untitled", "(anonymous)", "(unspecified)"),
    *("document", "word document", "powerpoint presentation", "presentation"),
}
_UNPRINTABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the original a block stands, counted from 1; 0 or "" for what its format does not have.

    `row` is that of the block's first line, and each further line is one row more.
    """

    page: int = 0
    slide: int = 0
    sheet: str = ""
    row: int = 0


NOWHERE = Place()


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list item, table or code fence: `text[start:end]`. `whole` ones (tables, code) are kept together.

    `heading` is the path of headings above it, joined by " > ", without the document's title. `columns` names those of
    a table, for the parts of it that will not hold its first row.
    """

    start: int
    end: int
    heading: str = ""
    whole: bool = False
    place: Place = NOWHERE
    columns: str = ""


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """Blocks are in order and do not overlap; headings themselves are in none. `notes` say what could not be read."""

    title: str
    text: str
    blocks: tuple[Block, ...]
    media_type: str
    notes: tuple[str, ...] = ()

    @property
    def headings(self) -> tuple[str, ...]:
        """Each heading path that has text under it, in order."""
        return tuple(dict.fromkeys(block.heading for block in self.blocks if block.heading))


def normalise(text: str) -> str:
    """NFC, line ends as \\n, invisible characters gone, NUL and lone surrogates as U+FFFD. Idempotent."""
    text = _INVISIBLE.sub("", _LINE_END.sub("\n", text))
    if not text.isascii():
        # Through UTF-16 a pair of surrogates becomes its character and a lone one U+FFFD.
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        # Again, for what a pair of surrogates had hidden.
        text = unicodedata.normalize("NFC", _INVISIBLE.sub("", text))
    return _UNPRINTABLE.sub("\ufffd", text)


def true_title(title: str) -> str:
    """A title from a file's properties as one line; empty if it is only what a tool wrote there."""
    title = " ".join(normalise(title).split())
    return "" if title.lower() in _NO_TITLES else title


class Outline:
    """The headings that hold at a place. A heading that only repeats the title is left out of paths."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._open: list[tuple[int, str]] = []

    def enter(self, level: int, heading: str) -> None:
        while self._open and self._open[-1][0] >= level:
            self._open.pop()
        self._open.append((level, " ".join(heading.split())))

    @property
    def path(self) -> str:
        return " > ".join(heading for _, heading in self._open if heading and heading != self._title)


class Builder:
    """Puts a document together from pieces, for formats whose text is not the file itself."""

    def __init__(self, title: str) -> None:
        self._outline = Outline(title)
        self._pieces: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    def heading(self, level: int, heading: str, *, shown: bool = True) -> None:
        """Not `shown`: it names a place (page 3) and is no text of the document."""
        heading = normalise(heading).strip()
        if shown and heading:
            self._put(heading)
        self._outline.enter(level, heading)

    def block(self, text: str, *, whole: bool = False, place: Place = NOWHERE, columns: str = "") -> None:
        """Empty ones are ignored."""
        text = normalise(text).strip()
        if text:
            start = self._put(text)
            block = Block(start, start + len(text), self._outline.path, whole, place, normalise(columns))
            self._blocks.append(block)

    def include(self, document: ParsedDocument) -> None:
        """Another document under the headings that hold now."""
        start = self._put(document.text)
        for block in document.blocks:
            heading = " > ".join(part for part in (self._outline.path, block.heading) if part)
            self._blocks.append(replace(block, start=start + block.start, end=start + block.end, heading=heading))

    @property
    def empty(self) -> bool:
        return not self._blocks

    def build(self, title: str, media_type: str, notes: tuple[str, ...] = ()) -> ParsedDocument:
        return ParsedDocument(title, "\n\n".join(self._pieces), tuple(self._blocks), media_type, notes)

    def _put(self, text: str) -> int:
        start = self._length
        self._pieces.append(text)
        self._length += len(text) + 2
        return start
