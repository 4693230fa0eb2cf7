"""What a tool brought, as text for a model: words and JSON go on, of HTML the words, and of pictures, sounds and files
a note that says what was left out.
"""

import json
import re
from collections.abc import Iterable, Mapping
from html.parser import HTMLParser
from typing import Any, Final

MAX_HTML_CHARS: Final = 400_000  # of it are read; what a model gets of it is far less
_HTML: Final = re.compile(r"\s*(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
# Control characters, lone surrogates, and what stands for bytes that were no text.
_NO_TEXT: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffd]")
_BINARY_SHARE: Final = 0.05  # prose has none; of random bytes read as Latin-1 a tenth are control characters
_HIDDEN: Final = frozenset({"script", "style", "noscript", "template", "head", "svg"})
_BLOCKS: Final = frozenset(
    {"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "section", "article", "pre"}
)


def shown(text: str, media_type: str = "") -> str:
    """Text of a tool as a model may have it. What is no text becomes a note; single stray characters are replaced."""
    strays = len(_NO_TEXT.findall(text))
    if strays > _BINARY_SHARE * len(text):
        return left_out("binary data", media_type, len(text))
    if strays:
        text = _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text)
    return _words(text) if media_type.startswith("text/html") or _HTML.match(text) else text


def left_out(what: str, media_type: str, size_bytes: int) -> str:
    """The note in place of something that is not given to the model."""
    kind = f", {media_type}" if media_type else ""
    return f"[left out: {what}{kind}, {size_bytes} bytes]"


def block_text(block: str | Mapping[str, Any]) -> str:
    """A content block of langchain-core."""
    if isinstance(block, str):
        return shown(block)
    kind = str(block.get("type", "data"))
    if kind == "text":
        return shown(str(block.get("text", "")))
    if kind == "json":
        return json.dumps(block.get("json", block.get("data")), ensure_ascii=False, default=str)
    media_type = str(block.get("mime_type", ""))
    return left_out(kind.removesuffix("_url"), media_type, len(json.dumps(block, default=str)))


def joined(parts: Iterable[str]) -> str:
    return "\n".join(filter(None, parts))


class _Words(HTMLParser):
    """Gathers what stands between tags, but for what no reader sees."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # A page may leave its head open; its body is seen all the same.
        self._hidden = 0 if tag == "body" else self._hidden + (tag in _HIDDEN)
        if tag in _BLOCKS:
            self.words.append("\n")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _HIDDEN))
        if tag in _BLOCKS:
            self.words.append("\n")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.words.append(data)


def _words(html: str) -> str:
    reader = _Words()
    reader.feed(html[:MAX_HTML_CHARS])
    reader.close()
    words = "\n".join(filter(None, map(str.strip, "".join(reader.words).splitlines())))
    cut = f"\n[left out: {len(html) - MAX_HTML_CHARS} more characters of HTML]" if len(html) > MAX_HTML_CHARS else ""
    return (words or "[left out: HTML without any text]") + cut
