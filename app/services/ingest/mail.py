"""Mail: who wrote to whom, the letter, and what is attached to it. Runs in the child process."""

from email import policy
from email.message import EmailMessage, MIMEPart
from email.parser import BytesParser
from typing import cast

from app.services.ingest.detect import MEDIA_TYPES, decode, detect
from app.services.ingest.document import Builder, ParsedDocument, normalise
from app.services.ingest.html import parse_html
from app.services.ingest.markdown import parse_text
from app.services.ingest.reader import read
from graphs.errors import DocumentUnreadable

LIMIT_DEPTH = 3  # of mails in mails
LIMIT_ATTACHMENTS = 100
_SHOWN = ("From", "To", "Cc", "Date", "Subject")


def parse_eml(data: bytes) -> ParsedDocument:
    """The subject is the title. An attachment that cannot be read is noted and leaves the mail alone."""
    return _mail(BytesParser(policy=policy.default).parsebytes(data), depth=1)


def _mail(message: EmailMessage, depth: int) -> ParsedDocument:
    title = " ".join(normalise(str(message["Subject"] or "")).split())
    builder, notes = Builder(title), list[str]()
    builder.block("\n".join(f"{name}: {message[name]}" for name in _SHOWN if message[name]))
    body = message.get_body(("plain", "html"))
    if body is not None:
        text = _written(body)
        builder.include(parse_html(text.encode()) if body.get_content_subtype() == "html" else parse_text(text))
    attached = list(message.iter_attachments()) if message.is_multipart() else []
    if len(attached) > LIMIT_ATTACHMENTS:
        notes.append(f"of {len(attached)} attachments {LIMIT_ATTACHMENTS} are read")
    for number, part in enumerate(attached[:LIMIT_ATTACHMENTS], 1):
        name = normalise(part.get_filename() or f"attachment {number}")
        builder.heading(1, name)
        try:
            inner = _attachment(part, name, depth)
        except DocumentUnreadable as error:
            notes.append(f"the attachment {name} is left out: {error.message}")
        else:
            builder.include(inner)
            notes += inner.notes
    return builder.build(title, MEDIA_TYPES["eml"], tuple(notes))


def _attachment(part: EmailMessage, name: str, depth: int) -> ParsedDocument:
    if part.get_content_type() == "message/rfc822":
        if depth == LIMIT_DEPTH:
            raise DocumentUnreadable(f"mails in mails are read {LIMIT_DEPTH} deep", field="file")
        return _mail(cast(EmailMessage, part.get_payload(0)), depth + 1)
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes):
        raise DocumentUnreadable("it is a bundle of other parts", field="file")
    return read(detect(content, name, part.get_content_type()), content)


def _written(part: MIMEPart) -> str:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    try:
        return content.decode(part.get_content_charset("utf-8"), "replace")
    except LookupError:
        return decode(content)
