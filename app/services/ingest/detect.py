"""What a file is, by its content first and its name second, and its bytes as text."""

import codecs
import re
from pathlib import PurePath
from typing import Final, Literal

from graphs.errors import DocumentUnreadable

Format = Literal["pdf", "docx", "pptx", "xlsx", "csv", "html", "markdown", "text", "eml", "json", "jsonl"]
_OFFICE = "application/vnd.openxmlformats-officedocument."
MEDIA_TYPES: Final[dict[Format, str]] = {
    "pdf": "application/pdf",
    "docx": f"{_OFFICE}wordprocessingml.document",
    "pptx": f"{_OFFICE}presentationml.presentation",
    "xlsx": f"{_OFFICE}spreadsheetml.sheet",
    "csv": "text/csv",
    "html": "text/html",
    "markdown": "text/markdown",
    "text": "text/plain",
    "eml": "message/rfc822",
    "json": "application/json",
    "jsonl": "application/jsonl",
}
SUFFIXES: Final[dict[str, Format]] = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".docm": "docx",
    ".pptx": "pptx",
    ".pptm": "pptx",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".csv": "csv",
    ".tsv": "csv",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".eml": "eml",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}
_DECLARED: Final[dict[str, Format]] = {media_type: kind for kind, media_type in MEDIA_TYPES.items()} | {
    "application/xhtml+xml": "html",
    "text/tab-separated-values": "csv",
    "application/x-ndjson": "jsonl",
}

_BINARY: Final[dict[Format, str]] = {
    "pdf": "a PDF",
    "docx": "a Word document",
    "pptx": "a presentation",
    "xlsx": "a workbook",
}
# The first name in an Office file's archive that tells its kind; files embedded in it come later.
_OFFICE_PART = re.compile(rb"(word|ppt|xl)/")
_OFFICE_KINDS: Final[dict[bytes, Format]] = {b"word": "docx", b"ppt": "pptx", b"xl": "xlsx"}
_LOCKED_OFFICE = "EncryptedPackage".encode("utf-16-le")

_SIGNATURES = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "an empty zip archive",
    b"\xd0\xcf\x11\xe0": "an Office file of before 2007 (save it as .docx, .pptx or .xlsx)",
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
_UNREAD_NAMES = {".msg": "an Outlook message (save it as .eml)", ".xml": "XML", ".rtf": "RTF", ".svg": "an image"}
_HTML = re.compile(r"<!doctype\s+html|<html[\s>]|<head[\s>]|<body[\s>]", re.IGNORECASE)
_HEADING = re.compile(r"^#{1,6} \S", re.MULTILINE)
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,60}:")
# Among the first lines, all headers, one that only mail has.
_MAIL = re.compile(
    r"(?:(?:[A-Za-z][A-Za-z0-9-]{0,60}:|[ \t])[^\n]*\n){0,20}?(?:Return-Path|Received|Message-ID|MIME-Version): "
)
_CHARSET = re.compile(rb"<meta\s[^>]{0,200}charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 64 * 1024
_FALLBACK = "cp1252"
_ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"),
    *("gb18030", "big5", "shift_jis", "euc_jp", "euc_kr"),
)


def detect(data: bytes, filename: str = "", media_type: str = "") -> Format:
    """Raises DocumentUnreadable for an empty file and for types that are not read."""
    if not data.strip():
        raise DocumentUnreadable("the document is empty", field="file")
    suffix = PurePath(filename).suffix.lower()
    declared = media_type.partition(";")[0].strip().lower()
    told = SUFFIXES.get(suffix) or _DECLARED.get(declared)
    found = _by_signature(data, told)
    if found:
        return found
    if told in _BINARY:
        raise DocumentUnreadable(f"the file is named {_BINARY[told]} but is none", field="file")
    head = decode(data[:_HEAD_BYTES])
    start = head.lstrip()[:1024]
    if told == "html" or (start.startswith("<") and _HTML.search(start)):
        return "html"
    if suffix in _UNREAD_NAMES or start.startswith("<?xml"):
        raise _unread(_UNREAD_NAMES.get(suffix, "XML"))
    # More than one in ten of the characters that no text has: not text in any encoding that we know.
    if sum(character < " " and character not in "\t\n\r\f\x00" for character in head) > len(head) / 10:
        raise _unread("a binary file")
    if told == "eml" and not _HEADER.match(start):
        raise DocumentUnreadable("the file is named a mail but has no header", field="file")
    if told:
        return told
    if _MAIL.match(head):
        return "eml"
    return "markdown" if not suffix and not declared and _HEADING.search(head) else "text"


def _by_signature(data: bytes, told: Format | None) -> Format | None:
    """What the first bytes say alone. Raises DocumentUnreadable for what they say is not read."""
    if b"%PDF-" in data[:1024]:
        return "pdf"
    part = _OFFICE_PART.search(data) if data.startswith(b"PK\x03\x04") else None
    if part:
        return _OFFICE_KINDS[part.group(1)]
    if told in _OFFICE_KINDS.values() and data.startswith(b"PK"):
        return told  # cut before it told its kind; its reader says so
    for signature, what in _SIGNATURES.items():
        if data.startswith(signature):
            if _LOCKED_OFFICE in data:
                raise DocumentUnreadable("the Office file is locked with a password", field="file")
            raise _unread(what)
    return None


def decode(data: bytes) -> str:
    """UTF-8, UTF-16 or 32 where the bytes say so, else the charset that an HTML head names, else the likeliest."""
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
        return data.decode(_known(named.group(1).decode()) if named else _likeliest(data[:_HEAD_BYTES]), "replace")


def _known(name: str) -> str:
    try:
        # Names of non-text codecs (hex, zip) are known too, and are no charsets.
        return name if name and "".encode(name) == b"" else _FALLBACK
    except (LookupError, UnicodeError, ValueError):
        return _FALLBACK


def _likeliest(head: bytes) -> str:
    """Among the encodings that files are met in: with all of Python's to choose from, short texts become EBCDIC."""
    from charset_normalizer import from_bytes  # Lazy: nearly every text is UTF-8

    found = from_bytes(head, cp_isolation=list(_ENCODINGS), threshold=0.3).best()
    return found.encoding if found else _FALLBACK


def _unread(what: str) -> DocumentUnreadable:
    return DocumentUnreadable(
        f"the file is {what}; PDF, DOCX, PPTX, XLSX, CSV, HTML, Markdown, text, EML and JSON are read", field="file"
    )
