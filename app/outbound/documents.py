"""Documents by URL: the bytes, what the server calls them, and where they came from in the end."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from app.outbound.client import Outbound
from app.outbound.policy import Limits
from app.outbound.reply import Reply
from graphs.errors import Missing, UpstreamError, UpstreamRateLimited, UpstreamRejected

_OFFICE: Final = "application/vnd.openxmlformats-officedocument."
CONTENT_TYPES: Final = frozenset(
    {
        "application/json",
        "application/jsonl",
        "application/octet-stream",  # of a server that does not know; the reader of documents looks itself
        "application/pdf",
        "application/x-ndjson",
        "application/xhtml+xml",
        "message/rfc822",
        "text/csv",
        "text/html",
        "text/markdown",
        "text/plain",
        "text/x-markdown",
        f"{_OFFICE}presentationml.presentation",
        f"{_OFFICE}spreadsheetml.sheet",
        f"{_OFFICE}wordprocessingml.document",
    }
)
LIMITS: Final = Limits(total_s=60.0, max_bytes=32 << 20, redirects=3, content_types=CONTENT_TYPES)
_ASKS_TO_WAIT: Final = frozenset({408, 425, 429})


@dataclass(frozen=True, slots=True)
class Fetched:
    """`content_type` is the server's word, not what the bytes are; `url` is where they came from after redirects."""

    body: bytes
    content_type: str
    url: str


async def fetch_document(outbound: Outbound, url: str) -> Fetched:
    """What lies behind the URL; `outbound` has LIMITS or narrower ones.

    Raises what `Outbound.send` does, Missing for 404 and 410, UpstreamRejected for what another try cannot mend, and
    UpstreamError for what it may.
    """
    reply = await outbound.send("GET", url, headers={"Accept": ", ".join(sorted(CONTENT_TYPES))})
    if reply.status == 200:
        return Fetched(reply.body, reply.content_type, reply.url)
    raise _failure(reply)


def _failure(reply: Reply) -> UpstreamError | Missing:
    told = f"the document's server answered with status {reply.status}"
    if reply.status in {404, 410}:
        return Missing(told)
    if reply.status in _ASKS_TO_WAIT:
        return UpstreamRateLimited(told, retry_after_s=reply.retry_after_s(datetime.now(UTC)))
    if reply.status < 500:
        return UpstreamRejected(told)
    return UpstreamError(told, retry_after_s=reply.retry_after_s(datetime.now(UTC)))
