"""Pages of the web as text: HTML by the reader of documents, in its child process; other text as it is."""

import asyncio
from typing import Final

from app.services.ingest.apart import parse_apart
from app.services.ingest.detect import decode
from app.services.ingest.document import normalise
from app.services.tools.web_fetch import Page

READERS: Final = 2  # child processes at once, a gigabyte each at most
_HTML: Final = frozenset({"text/html", "application/xhtml+xml"})


class PageReader:
    """Implements `app.services.tools.web_fetch.PageReader`."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(READERS)

    async def __call__(self, body: bytes, content_type: str) -> Page:
        """Raises DocumentUnreadable for HTML that breaks its parser."""
        if content_type not in _HTML:
            return Page("", normalise(await asyncio.to_thread(decode, body)))
        async with self._turns:
            parsed = await parse_apart("html", body)
        return Page(parsed.title, parsed.text)
