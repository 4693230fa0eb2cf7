"""PDF to text, page by page. Runs in the child process. Scanned pages give nothing: there is no OCR here."""

import io
import logging

from app.services.ingest.document import Builder, ParsedDocument, normalise
from graphs.errors import DocumentUnreadable

LIMIT_PAGES = 5_000
_NO_TITLES = {"untitled", "(anonymous)", "(unspecified)", "document", "powerpoint presentation"}  # what tools write


def parse_pdf(data: bytes) -> ParsedDocument:
    """Each page is a place named "page n". A page that cannot be read is noted. Raises DocumentUnreadable."""
    from pypdf import PasswordType, PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it comments on every oddity of a file
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and reader.decrypt("") == PasswordType.NOT_DECRYPTED:
            raise DocumentUnreadable("the PDF is locked with a password", field="file")
        count = len(reader.pages)
        title = normalise(str((reader.metadata.title if reader.metadata else None) or "")).strip()
        title = "" if title.lower() in _NO_TITLES else title
    except (PyPdfError, *_DAMAGE) as error:
        raise DocumentUnreadable("the PDF is broken", field="file") from error
    if count > LIMIT_PAGES:
        raise DocumentUnreadable(f"the PDF has {count} pages, at most {LIMIT_PAGES} are read", field="file")
    builder, notes = Builder(title), list[str]()
    for number in range(1, count + 1):
        builder.heading(1, f"page {number}", shown=False)
        try:
            builder.block(reader.pages[number - 1].extract_text())
        except (PyPdfError, *_DAMAGE) as error:
            notes.append(f"page {number} could not be read ({type(error).__name__})")
    document = builder.build(title, "application/pdf", tuple(notes))
    if not document.blocks:
        reason = "no page could be read" if notes else "no page holds text, perhaps they are scans (there is no OCR)"
        raise DocumentUnreadable(f"the PDF gives nothing: {reason}", field="file")
    return document


# What pypdf lets through when a file's structure lies: found by feeding it cut and flipped files.
_DAMAGE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    RecursionError,
    AssertionError,
    ZeroDivisionError,
    OverflowError,
    NotImplementedError,
    OSError,
)
