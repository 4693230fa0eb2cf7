"""A file or a text to a ParsedDocument; whatever is wrong with it is a DocumentUnreadable that says what."""

import asyncio
from contextlib import nullcontext

from app.services.ingest.apart import parse_apart
from app.services.ingest.child import LIMIT_CHARS
from app.services.ingest.detect import MEDIA_TYPES, detect
from app.services.ingest.document import ParsedDocument, normalise
from app.services.ingest.reader import read
from graphs.errors import DocumentUnreadable

# A process costs 0.2 s and more, which a batch of a thousand short texts would feel. Markdown's block structure was
# read at 100 kB/s at worst (tables without end), so that this much takes 2.5 s of a thread; a larger file goes to the
# child process like every other format.
LIMIT_INLINE_BYTES = 256 * 1024


async def parse(
    data: bytes | str, filename: str = "", media_type: str = "", *, turns: asyncio.Semaphore | None = None
) -> ParsedDocument:
    """`turns` bounds how many child processes run at once, a gigabyte each at most.

    Raises DocumentUnreadable: broken, locked, empty, too large, or of a type that is not read.
    """
    if isinstance(data, str) and len(data) > LIMIT_CHARS:
        raise DocumentUnreadable(f"the document holds more than {LIMIT_CHARS} characters", field="text")
    # Lone surrogates have no bytes; normalised they are gone, and normalising again changes nothing.
    content = data if isinstance(data, bytes) else normalise(data).encode()
    kind = await asyncio.to_thread(detect, content, filename, media_type)
    if kind in {"markdown", "text"} and len(content) <= LIMIT_INLINE_BYTES:
        document = await asyncio.to_thread(read, kind, content)
    else:
        async with turns or nullcontext():
            document = await parse_apart(kind, content)
    if not document.text.replace("\ufffd", "").strip():
        raise DocumentUnreadable(f"the document ({MEDIA_TYPES[kind]}) holds no text", field="file")
    return document
