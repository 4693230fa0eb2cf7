"""One answer, whole: its head, and a body that was unpacked within a bound."""

import asyncio
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

from aiohttp import ClientResponse

from app.outbound.errors import AnswerTooLarge
from graphs.errors import UpstreamError

MAX_RETRY_AFTER_S: Final = 3_600.0
_READ_BYTES: Final = 1 << 16
_STEP_BYTES: Final = 1 << 18  # of unpacked text at a time: the loop gets a turn in between
_WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


@dataclass(frozen=True, slots=True)
class Reply:
    """`url` is where the answer came from after redirects; header names are in lower case, the first of each."""

    status: int
    url: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content_type(self) -> str:
        return media_type(self.headers)

    def retry_after_s(self, now: datetime) -> float | None:
        """How long the server asks to wait, at most MAX_RETRY_AFTER_S; None if it is silent or speaks nonsense."""
        value = self.headers.get("retry-after", "").strip()
        if value.isascii() and value.isdigit():
            return min(float(value[:9]), MAX_RETRY_AFTER_S)
        try:
            date = parsedate_to_datetime(value)
        except (ValueError, OverflowError):
            return None
        at = date if date.tzinfo else date.replace(tzinfo=UTC)
        return min(max(0.0, (at - now).total_seconds()), MAX_RETRY_AFTER_S)


def media_type(headers: Mapping[str, str]) -> str:
    """What the server calls its answer, without parameters, in lower case."""
    return headers.get("content-type", "").partition(";")[0].strip().lower() or "application/octet-stream"


async def whole_body(response: ClientResponse, headers: Mapping[str, str], max_bytes: int) -> bytes:
    """The body, unpacked. Raises AnswerTooLarge, before reading where the head says so, and UpstreamError."""
    declared = headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise AnswerTooLarge(f"the answer has more than {max_bytes} bytes")
    unpack = _Unpacking(headers.get("content-encoding", "identity").lower(), max_bytes)
    async for piece in response.content.iter_chunked(_READ_BYTES):
        await unpack.feed(piece)
    return unpack.end()


class _Unpacking:
    def __init__(self, encoding: str, max_bytes: int) -> None:
        self._max_bytes, self._body, self._zlib = max_bytes, bytearray(), None
        if (bits := _WINDOW_BITS.get(encoding)) is not None:
            self._zlib = zlib.decompressobj(bits)
        elif encoding not in {"", "identity"}:
            raise UpstreamError("the answer is packed in a way that was not asked for")

    async def feed(self, piece: bytes) -> None:
        if self._zlib is None:
            self._keep(piece)
            return
        while piece:
            try:
                self._keep(self._zlib.decompress(piece, _STEP_BYTES))
            except zlib.error as error:
                raise UpstreamError("the answer cannot be unpacked") from error
            piece = self._zlib.unconsumed_tail
            await asyncio.sleep(0)
        if self._zlib.unused_data:  # more members, each of which may be empty and cost its unpacking
            raise UpstreamError("the answer goes on after its packed body")

    def _keep(self, text: bytes) -> None:
        self._body += text
        if len(self._body) > self._max_bytes:
            raise AnswerTooLarge(f"the answer has more than {self._max_bytes} bytes")

    def end(self) -> bytes:
        if self._zlib is not None and self._body and not self._zlib.eof:
            raise UpstreamError("the answer breaks off before its packed body ends")
        return bytes(self._body)
