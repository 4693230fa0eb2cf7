"""Documents by URL as sources of the ingest: fetched with the guarded client, named by where they came from."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final, Self

from yarl import URL

from app.config.schema import ReachConfig
from app.outbound.client import Outbound
from app.outbound.documents import LIMITS, fetch_document
from app.outbound.policy import Reach
from app.services.ingest.detect import SUFFIXES
from app.services.ingest.ingest import Source
from graphs.errors import UpstreamError, UpstreamRejected

log = logging.getLogger("pilothouse.jobs")

PAUSES_S: Final = (1.0, 5.0)
LONGEST_WAIT_S: Final = 30.0  # for a server that asks to wait: others of the job are behind this one
FETCHED_AT_ONCE: Final = 4  # each may be as large as an upload


class Fetcher:
    """Fetches a document, again after a pause where its server was away for a moment."""

    def __init__(self, outbound: Outbound, pauses_s: Sequence[float] = PAUSES_S) -> None:
        self._outbound, self._pauses_s = outbound, pauses_s

    @classmethod
    def of(cls, config: ReachConfig, max_bytes: int) -> Self:
        """Where the operator's file allows it, as large as an upload."""
        return cls(Outbound(Reach.of(config), replace(LIMITS, max_bytes=max_bytes)))

    async def source(
        self, url: str, *, document_id: str = "", title: str = "", metadata: Mapping[str, Any] | None = None
    ) -> Source:
        """Without a `document_id` it is the URL at which the document was found in the end.

        Raises what `fetch_document` does.
        """
        for pause_s in self._pauses_s:
            try:
                return await self._source(url, document_id, title, metadata or {})
            except UpstreamRejected:
                raise
            except UpstreamError as error:
                log.info("a document's server is asked again", extra={"said": error.message})
                await asyncio.sleep(min(max(pause_s, error.retry_after_s or 0.0), LONGEST_WAIT_S))
        return await self._source(url, document_id, title, metadata or {})

    async def _source(self, url: str, document_id: str, title: str, metadata: Mapping[str, Any]) -> Source:
        fetched = await fetch_document(self._outbound, url)
        name = PurePosixPath(URL(fetched.url).path).name
        return Source(
            id=document_id or fetched.url,
            content=fetched.body,
            filename=name if PurePosixPath(name).suffix.lower() in SUFFIXES else "",  # /page.php is HTML
            media_type=fetched.content_type,
            title=title,
            metadata=metadata,
        )
