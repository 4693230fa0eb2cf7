"""What a file is, by its content first and its name second, and its bytes as text."""

import codecs
import re
from pathlib import PurePath
from typing import Literal

from graphs.errors import DocumentUnreadable

Format = Literal["pdf", "html", "markdown", "text"]
MEDIA_TYPES: dict[Format, str] = {
    "pdf": "application/pdf",
    "html": "text/html",
    "markdown": "text/markdown",
    "text": "text/plain",
}

_SIGNATURES = {
    b"PK\x03\x04": "a zip archive or an Office file",
    b"PK\x05\x06": "an empty zip archive",
    b"\xd0\xcf\x11\xe0": "an old Office file or a locked one",
    b"\x1f\x8b": "gzip",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"II*\x00": "an image",
    b"MM\x00*": "an image",
    b"RIFF": "audio, video or an image",
    b"\x7fELF": "a program",
    b"{\\rtf": "RTF",
}
_UNREAD_NAMES = {".eml": "a mail", ".msg": "a mail", ".xml": "XML", ".rtf": "RTF", ".svg": "an image"}
_HTML = re.compile(r"<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>]", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
_CHARSET = re.compile(rb"<meta\s[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 64 * 1024


def detect(data: bytes, filename: str = "", media_type: str = "") -> Format:
    """Raises DocumentUnreadable for an empty file and for types that are not read."""
    if not data.strip():
        raise DocumentUnreadable("the document is empty", field="file")
    if b"%PDF-" in data[:1024]:
        return "pdf"
    for signature, what in _SIGNATURES.items():
        if data.startswith(signature):
            raise _unread(what)
    suffix = PurePath(filename).suffix.lower()
    declared = media_type.partition(";")[0].strip().lower()
    if suffix == ".pdf" or declared == "application/pdf":
        raise DocumentUnreadable("the file is named a PDF but is none", field="file")
    head = decode(data[:_HEAD_BYTES])
    start = head.lstrip()[:1024]
    if suffix in {".html", ".htm", ".xhtml"} or declared in {"text/html", "application/xhtml+xml"}:
        return "html"
    if start.startswith("<") and _HTML.search(start):
        return "html"
    if suffix in _UNREAD_NAMES or start.startswith("<?xml"):
        raise _unread(_UNREAD_NAMES.get(suffix, "XML"))
    # More than one in ten of the characters that no text has: not text in any encoding that we know.
    if sum(character < " " and character not in "\t\n\r\f\x00" for character in head) > len(head) / 10:
        raise _unread("a binary file")
    if suffix in {".md", ".markdown"} or declared == "text/markdown":
        return "markdown"
    return "markdown" if not suffix and not declared and _HEADING.search(head) else "text"


def decode(data: bytes) -> str:
    """UTF-8, UTF-16 or 32 where the bytes say so, else the charset that an HTML head names, else Windows-1252."""
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    head = data[:1024]
    for encoding, zeros in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if len(zeros) > 1 and zeros.count(0) > len(zeros) * 0.6:
            return data.decode(encoding, "replace")
    try:
        # Incremental: a head that was cut inside a character is still UTF-8.
        return codecs.getincrementaldecoder("utf-8")().decode(data)
    except UnicodeDecodeError:
        named = _CHARSET.search(data[:_HEAD_BYTES])
        return data.decode(_known(named.group(1).decode() if named else ""), "replace")


def _known(name: str) -> str:
    try:
        # Names of non-text codecs (hex, zip) are known too, and are no charsets.
        return name if name and "".encode(name) == b"" else "cp1252"
    except (LookupError, UnicodeError, ValueError):
        return "cp1252"


def _unread(what: str) -> DocumentUnreadable:
    return DocumentUnreadable(f"the file is {what}; PDF, HTML, Markdown and text are read", field="file")
