"""PDF to text, page by page. Runs in the child process. Scanned pages give nothing: there is no OCR here."""

import re

from app.services.ingest.document import Builder, ParsedDocument, Place, true_title
from graphs.errors import DocumentUnreadable

LIMIT_PAGES = 5_000
# How pdfium marks a hyphen that only the end of a line asked for.
_BROKEN_WORD = re.compile("[\\x02\\ufffe](?:\\r?\\n)?")


def parse_pdf(data: bytes) -> ParsedDocument:
    """Each page is a place named "page n". A page that cannot be read is noted. Raises DocumentUnreadable."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        document = PdfDocument(data)
        count = len(document)
        title = true_title(document.get_metadata_value("Title"))
    except PdfiumError as error:
        locked = "password" in str(error).lower() or "security" in str(error).lower()
        raise DocumentUnreadable(
            "the PDF is locked with a password; remove it and upload the file again" if locked else "the PDF is broken",
            field="file",
        ) from error
    if count > LIMIT_PAGES:
        raise DocumentUnreadable(f"the PDF has {count} pages, at most {LIMIT_PAGES} are read", field="file")
    builder, notes = Builder(title), list[str]()
    for number in range(1, count + 1):
        builder.heading(1, f"page {number}", shown=False)
        try:
            page = document[number - 1]
            builder.block(_BROKEN_WORD.sub("", page.get_textpage().get_text_bounded()), place=Place(page=number))
            page.close()  # or the document keeps every page it has shown
        except PdfiumError:
            notes.append(f"page {number} could not be read")
    if builder.empty:
        reason = "no page could be read" if notes else "no page holds text, perhaps they are scans (there is no OCR)"
        raise DocumentUnreadable(f"the PDF gives nothing: {reason}", field="file")
    return builder.build(title, "application/pdf", tuple(notes))
