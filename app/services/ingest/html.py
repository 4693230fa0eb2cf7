"""HTML to text: what a reader would see, with its headings. Runs in the child process: deep nesting takes minutes."""

import re
from collections.abc import Iterator
from typing import Any

from app.services.ingest.detect import decode
from app.services.ingest.document import Builder, ParsedDocument, normalise

_SKIPPED = {"script", "style", "noscript", "template", "svg", "math", "head", "iframe", "object", "nav", "select"}
# fmt: off
_INLINE = {
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "img",
    "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub",
    "sup", "time", "tt", "u", "var", "wbr", "-text",
}
# fmt: on
# Text that the page hides from its readers would still steer a model.
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d]*[1-9])", re.IGNORECASE)


def parse_html(data: bytes) -> ParsedDocument:
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(decode(data))
    named = tree.css_first("title") or tree.css_first("h1")
    title = normalise(" ".join(named.text().split())) if named else ""
    reader = _Reader(title)
    if tree.root is not None:
        for node, entering in _walk(tree.root):
            (reader.enter if entering else reader.leave)(node)
    reader.flush()
    return reader.builder.build(title, "text/html")


class _Reader:
    """Gathers running text until a block ends. Inside a table cells are joined by " | ", rows by line ends."""

    def __init__(self, title: str) -> None:
        self.builder = Builder(title)
        self._text: list[str] = []
        self._tables = 0
        self._verbatim = 0

    def enter(self, node: Any) -> None:
        tag = node.tag
        if tag == "-text":
            text = node.text_content or ""
            self._text.append(text if self._verbatim else re.sub(r"\s+", " ", text))
        elif tag == "br":
            self._text.append("\n")
        elif tag in {"td", "th"} and self._tables:
            self._text.append(" | " if node.prev is not None and "".join(self._text).rpartition("\n")[2] else "")
        elif tag not in _INLINE and not self._tables and not self._verbatim:
            self.flush()
            if tag == "li":
                self._text.append("- ")
        elif tag not in _INLINE:
            self._text.append(" ")
        self._tables += tag == "table"
        self._verbatim += tag == "pre"

    def leave(self, node: Any) -> None:
        tag = node.tag
        if tag == "tr" and self._tables:
            self._text.append("\n")
        self._tables -= tag == "table"
        self._verbatim -= tag == "pre"
        if tag in _INLINE or tag == "br" or self._tables or self._verbatim:
            return
        if tag in {"h1", "h2", "h3", "h4", "h5", "h6"}:
            heading, self._text = " ".join("".join(self._text).split()), []
            if heading:
                self.builder.heading(int(tag[1]), heading)
        else:
            self.flush(whole=tag == "table", verbatim=tag == "pre")

    def flush(self, *, whole: bool = False, verbatim: bool = False) -> None:
        text, self._text = "".join(self._text), []
        if not verbatim:
            text = "\n".join(" ".join(line.split()) for line in text.split("\n") if line.strip())
        if text != "-":
            self.builder.block(text, whole=whole or verbatim)


def _walk(root: Any) -> Iterator[tuple[Any, bool]]:
    """Each shown node, entering (True) and leaving (False); without recursion, since nesting has no limit."""
    waiting = [(root, True)]
    while waiting:
        node, entering = waiting.pop()
        if entering:
            if node.tag in _SKIPPED or node.is_comment_node or _hidden(node):
                continue
            waiting.append((node, False))
            waiting.extend((child, True) for child in reversed(list(node.iter(include_text=True))))
        yield node, entering


def _hidden(node: Any) -> bool:
    if not node.is_element_node:
        return False
    attributes = node.attributes
    return "hidden" in attributes or bool(_HIDDEN.search(attributes.get("style") or ""))
