"""Word documents: paragraphs, lists and tables under their headings. Runs in the child process.

Read are the body with its text boxes, content controls and formulas; not headers, footers, footnotes and comments.
Text that a reader cannot see (hidden, white on nothing, a point high) would still steer a model and is left out.
"""

import re
from collections.abc import Iterator
from typing import Any

from app.services.ingest.archive import checked_archive
from app.services.ingest.detect import MEDIA_TYPES
from app.services.ingest.document import Builder, ParsedDocument, true_title
from app.services.ingest.table import put_rows
from graphs.errors import DocumentUnreadable

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MATH_TEXT = "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # repeats a text box
_BREAKS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_LEVEL = re.compile(r"heading (\d)", re.IGNORECASE)
_TINY_HALF_POINTS = 4
_OFF = {"0", "false", "off"}


def parse_docx(data: bytes) -> ParsedDocument:
    from docx import Document  # its lxml resolves no entities
    from docx.opc.exceptions import OpcError

    try:
        document = Document(checked_archive(data))
        reader = _Reader(document)
        for element in document.element.body.iterchildren():
            reader.read(element)
    except (OpcError, SyntaxError, KeyError, ValueError, AttributeError) as error:  # lxml's are SyntaxErrors
        raise DocumentUnreadable("the Word document is broken", field="file") from error
    notes = ("hidden text is left out",) if reader.hidden else ()
    return reader.builder.build(reader.title, MEDIA_TYPES["docx"], notes)


class _Reader:
    def __init__(self, document: Any) -> None:
        self._styles = {style.style_id: style for style in document.styles}
        self.title = true_title(document.core_properties.title or "")
        self.builder = Builder(self.title)
        self.hidden = False

    def read(self, element: Any) -> None:
        """A paragraph, a table, or what holds them."""
        if element.tag == f"{_W}p":
            self._paragraph(element)
        elif element.tag == f"{_W}tbl":
            put_rows(self.builder, ([self._text(cell) for cell in _cells(row)] for row in element.iter(f"{_W}tr")))
        elif element.tag in {f"{_W}sdt", f"{_W}sdtContent", f"{_W}customXml", f"{_W}ins"}:
            for child in element.iterchildren():
                self.read(child)

    def _paragraph(self, paragraph: Any) -> None:
        text = self._text(paragraph)
        properties = paragraph.find(f"{_W}pPr")
        style = self._styles.get(_value(properties, "pStyle"))
        name = str(style.name) if style is not None and style.name else ""
        level = _LEVEL.fullmatch(name)
        if level and text.strip():
            self.builder.heading(int(level.group(1)), text)
        elif name == "Title" and text.strip() and not self.title:
            self.title = true_title(text)
            self.builder.heading(1, text)
        else:
            numbered = properties is not None and properties.find(f"{_W}numPr") is not None
            listed = numbered or name.startswith(("List Bullet", "List Number"))
            self.builder.block(f"- {text}" if listed and text.strip() else text)

    def _text(self, element: Any) -> str:
        return "".join(self._pieces(element)).strip()

    def _pieces(self, element: Any) -> Iterator[str]:
        """In document order and without recursion, since nesting has no limit."""
        waiting = [element]
        while waiting:
            node = waiting.pop()
            if node.tag in {f"{_W}t", _MATH_TEXT}:
                yield node.text or ""
            elif node.tag in _BREAKS:
                yield _BREAKS[node.tag]
            elif node.tag == f"{_W}r" and _unseen(node):
                self.hidden = True
            elif node.tag not in {_FALLBACK, f"{_W}del", f"{_W}pPr", f"{_W}rPr"}:
                if node is not element and node.tag == f"{_W}p":
                    yield "\n"
                waiting.extend(reversed(node))


def _cells(row: Any) -> Iterator[Any]:
    return (cell for cell in row.iter(f"{_W}tc") if next(cell.iterancestors(f"{_W}tr")) is row)


def _unseen(run: Any) -> bool:
    properties = run.find(f"{_W}rPr")
    if properties is None:
        return False
    vanish = properties.find(f"{_W}vanish")
    if vanish is not None and vanish.get(f"{_W}val") not in _OFF:
        return True
    size = _value(properties, "sz")
    if size.isdigit() and int(size) <= _TINY_HALF_POINTS:
        return True
    return _value(properties, "color").upper() == "FFFFFF" and not _shaded(run)


def _shaded(run: Any) -> bool:
    """White letters on a coloured cell or paragraph are read by everybody."""
    around = [run, *run.iterancestors(f"{_W}p", f"{_W}tc", f"{_W}tbl")]
    fills = (shade.get(f"{_W}fill") for element in around for shade in element.findall(f"{_W}*/{_W}shd"))
    return any(fill not in {None, "auto", "FFFFFF"} for fill in fills)


def _value(properties: Any, name: str) -> str:
    found = None if properties is None else properties.find(f"{_W}{name}")
    return (found.get(f"{_W}val") or "") if found is not None else ""
