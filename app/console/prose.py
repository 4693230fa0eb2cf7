"""A model's Markdown as HTML that can neither run nor fetch anything.

Raw HTML stays text, images become a note, links keep http, https and mailto only and show their host. Sentences that
no passage supports are marked and citations become numbered chips; both come from the answer card, not from the text.
"""

import re
from collections.abc import MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from app.records import CardCitation, CardSentence

# Where sentences begin and end travels through the parser as private-use characters that carry the sentence's place.
# Each has a space on its inner side, so that emphasis which opens or closes right there still counts as such by
# CommonMark's flanking rules.
_BEGINS: Final = 0xF0000
_ENDS: Final = 0x100000
_MOST: Final = 0xFFF0  # sentences that are marked; a plane has room for no more
_EDGE: Final = re.compile("([\U000f0000-\U000fffff]\u2005|\u2005[\U00100000-\U0010ffff])")
_RESERVED: Final = re.compile("[\U000f0000-\U0010ffff]")
_MARKER: Final = re.compile(r"\s?\[(\d{1,3})\]")
_BLOCK_START: Final = re.compile(r"[ \t>]*(?:[-*+]|\d{1,9}[.)]|#{1,6})[ \t]+")
_SAFE_SCHEMES: Final = ("http://", "https://", "mailto:")


def prose(text: str, sentences: Sequence[CardSentence] = (), citations: Sequence[CardCitation] = ()) -> Markup:
    """`text` as safe HTML. Offsets of `sentences` are those of `text`; chips refer to `citations` by number."""
    text = _RESERVED.sub("\ufffd", text)
    ordered = sorted(sentences, key=lambda sentence: sentence.start)[:_MOST]
    state = _Pass(text, ordered, {citation.number: citation for citation in citations})
    html = _parser.render(_mark(text, ordered), {"pass": state})
    return Markup(html + state.rest())  # noqa: S704 - every rule below escapes


class _Pass:
    """What one rendering knows: which sentence it is in, and whose chips it has drawn."""

    def __init__(self, text: str, sentences: Sequence[CardSentence], citations: dict[int, CardCitation]) -> None:
        self.text, self.sentences, self.citations = text, sentences, citations
        self.sentence: CardSentence | None = None
        self.ended: set[int] = set()
        self.hosts: list[str] = []

    def text_piece(self, piece: str) -> str:
        if _EDGE.fullmatch(piece):
            return self.edge(piece)
        parts: list[str] = []
        last = 0
        for marker in _MARKER.finditer(piece):
            if int(marker[1]) in self.citations:
                parts += [self.wrapped(piece[last : marker.start()]), self.chip(int(marker[1]))]
                last = marker.end()
        return "".join([*parts, self.wrapped(piece[last:])])

    def edge(self, piece: str) -> str:
        place = ord(piece.strip("\u2005"))
        if place < _ENDS:
            self.sentence = self.sentences[place - _BEGINS]
            return ""
        self.sentence = None
        return self._chips(place - _ENDS)

    def rest(self) -> str:
        """The chips of sentences whose end the parser took for something else, such as a link's definition."""
        chips = "".join(self._chips(index) for index in range(len(self.sentences)) if index not in self.ended)
        return f"<p>{chips}</p>" if chips else ""

    def wrapped(self, piece: str, before: str = "", after: str = "") -> str:
        if not piece:
            return ""
        shown = f"{before}{escape(piece)}{after}"
        sentence = self.sentence
        if sentence is None or sentence.supported or not piece.strip():
            return shown
        note = f"No passage supports this sentence (support {sentence.score:.2f})"
        return f'<span class="unsupported" title="{escape(note)}">{shown}</span>'

    def chip(self, number: int) -> str:
        citation = self.citations[number]
        where = " · ".join(part for part in (citation.title, citation.heading) if part)
        return (
            # The word joiner keeps a chip from standing alone on the next line.
            f'\u2060<button type="button" class="chip" data-act="cite" data-number="{number}" '
            f'title="{escape(where)}" aria-label="Source {number}: {escape(where)}">{number}</button>'
        )

    def _chips(self, index: int) -> str:
        """Citations of a sentence that has ended, except those that its text names as [n] itself."""
        self.ended.add(index)
        sentence = self.sentences[index]
        near = self.text[sentence.start : sentence.end + 6]
        owed = [number for number in sentence.citations if number in self.citations and f"[{number}]" not in near]
        return "".join(self.chip(number) for number in owed)


class _Renderer(RendererHTML):
    def text(self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]) -> str:
        return "".join(env["pass"].text_piece(piece) for piece in _EDGE.split(tokens[idx].content) if piece)

    def code_inline(self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]) -> str:
        return str(env["pass"].wrapped(_EDGE.sub("", tokens[idx].content), "<code>", "</code>"))

    def code_block(self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]) -> str:
        return self._code(tokens[idx].content, env)

    def fence(self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]) -> str:
        return self._code(tokens[idx].content, env)

    def image(self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]) -> str:
        alt = _EDGE.sub("", self.renderInlineAsText(tokens[idx].children, options, env))
        host = _host(str(tokens[idx].attrGet("src") or ""))
        return f'<span class="no-image">Image not shown{escape(f": {alt}" if alt else "")} ({escape(host)})</span>'

    def link_open(self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]) -> str:
        url = str(tokens[idx].attrGet("href") or "")
        env["pass"].hosts.append(_host(url))
        return f'<a class="outside" href="{escape(url)}" target="_blank" rel="noreferrer noopener nofollow">'

    def link_close(self, tokens: Sequence[Token], idx: int, options: Any, env: MutableMapping[str, Any]) -> str:
        return f'</a> <span class="host">{escape(env["pass"].hosts.pop())}</span>'

    def _code(self, content: str, env: MutableMapping[str, Any]) -> str:
        # Sentences that begin or end in a code block are counted, though they are not marked there.
        edges = "".join(env["pass"].text_piece(edge) for edge in _EDGE.findall(content))
        return f"<pre><code>{escape(_EDGE.sub('', content))}</code></pre>{edges}\n"


def _mark(text: str, sentences: Sequence[CardSentence]) -> str:
    out: list[str] = []
    last = 0
    for index, sentence in enumerate(sentences):
        block = _BLOCK_START.match(text, sentence.start)
        start = max(last, min(block.end() if block else sentence.start, sentence.end))
        while start > last and text[start - 1] in "*_~":
            start -= 1
        end = max(start, sentence.end)
        while end < len(text) and text[end] in "*_~":
            end += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        out += [text[last:start], chr(_BEGINS + index), "\u2005", text[start:end], "\u2005", chr(_ENDS + index)]
        last = end
    return "".join([*out, text[last:]])


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "unreadable address"
    return parts.netloc or parts.path


def _new_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"html": False}, renderer_cls=_Renderer).enable(["table", "strikethrough"])
    parser.validateLink = lambda url: url.lower().startswith(_SAFE_SCHEMES)  # type: ignore[method-assign]
    return parser


_parser = _new_parser()
