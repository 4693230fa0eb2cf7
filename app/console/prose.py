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

# Sentence ends travel through the parser as private-use characters. Each has a space on its inner side, so that
# emphasis which opens or closes right there still counts as such by CommonMark's flanking rules.
_BEGIN: Final = "\ue000\u2005"
_END: Final = "\u2005\ue001"
_EDGE: Final = re.compile(f"({_BEGIN}|{_END})")
_RESERVED: Final = re.compile("[\ue000\ue001]")
_MARKER: Final = re.compile(r"\s?\[(\d{1,3})\]")
_BLOCK_START: Final = re.compile(r"[ \t>]*(?:[-*+]|\d{1,9}[.)]|#{1,6})[ \t]+")
_SAFE_SCHEMES: Final = ("http://", "https://", "mailto:")


def prose(text: str, sentences: Sequence[CardSentence] = (), citations: Sequence[CardCitation] = ()) -> Markup:
    """`text` as safe HTML. Offsets of `sentences` are those of `text`; chips refer to `citations` by number."""
    text = _RESERVED.sub("\ufffd", text)
    ordered = sorted(sentences, key=lambda sentence: sentence.start)
    env = {"pass": _Pass(text, ordered, {citation.number: citation for citation in citations})}
    return Markup(_parser.render(_mark(text, ordered), env))  # noqa: S704 - every rule below escapes


class _Pass:
    """What one rendering knows: which sentence it is in, and the chips it owes."""

    def __init__(self, text: str, sentences: Sequence[CardSentence], citations: dict[int, CardCitation]) -> None:
        self.text, self.sentences, self.citations = text, sentences, citations
        self.index = -1
        self.inside = False
        self.hosts: list[str] = []

    def text_piece(self, piece: str) -> str:
        if piece == _BEGIN:
            self.index, self.inside = self.index + 1, True
            return ""
        if piece == _END:
            self.inside = False
            return "".join(self.chip(number) for number in self._owed())
        parts: list[str] = []
        last = 0
        for marker in _MARKER.finditer(piece):
            if int(marker[1]) in self.citations:
                parts += [self.wrapped(piece[last : marker.start()]), self.chip(int(marker[1]))]
                last = marker.end()
        return "".join([*parts, self.wrapped(piece[last:])])

    def wrapped(self, piece: str, before: str = "", after: str = "") -> str:
        if not piece:
            return ""
        shown = f"{before}{escape(piece)}{after}"
        sentence = self.sentences[self.index] if self.inside else None
        if sentence is None or sentence.supported or not piece.strip():
            return shown
        note = f"No passage supports this sentence (support {sentence.score:.2f})"
        return f'<span class="unsupported" title="{escape(note)}">{shown}</span>'

    def chip(self, number: int) -> str:
        citation = self.citations[number]
        where = " · ".join(part for part in (citation.title, citation.heading) if part)
        return (
            f'<button type="button" class="chip" data-act="cite" data-number="{number}" '
            f'title="{escape(where)}" aria-label="Source {number}: {escape(where)}">{number}</button>'
        )

    def _owed(self) -> list[int]:
        """Citations of the sentence that has just ended and that its text does not name as [n] itself."""
        sentence = self.sentences[self.index]
        near = self.text[sentence.start : sentence.end + 6]
        return [n for n in sentence.citations if n in self.citations and f"[{n}]" not in near]


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
    for sentence in sentences:
        block = _BLOCK_START.match(text, sentence.start)
        start = max(last, min(block.end() if block else sentence.start, sentence.end))
        while start > last and text[start - 1] in "*_~":
            start -= 1
        end = max(start, sentence.end)
        while end < len(text) and text[end] in "*_~":
            end += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        out += [text[last:start], _BEGIN, text[start:end], _END]
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
