"""HTTP/1.1 to a model server: one connection, one exchange at a time.

httptools reads the wire; what is here is what a call needs of it and no more: a general client cost a fifth of all that
the gateway adds to a call.
"""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Self, cast

import httptools

from graphs.errors import UpstreamError, UpstreamTimeout

MAX_HEAD_BYTES: Final = 65_536
MAX_UNFOLDED_BYTES: Final = 16 << 20  # of one read's worth of compressed bytes
_HELD_BYTES: Final = 1 << 18  # beyond it the server waits until the caller has read
_UNFOLDS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}  # window bits of zlib; some servers compress unasked


class Deadline(NamedTuple):
    """When waiting ends, on the loop's clock, and what is told then."""

    at: float
    told: str


class Response:
    """One answer as it comes. Use it as a context manager: leaving before its end closes the connection at once."""

    __slots__ = ("_connection", "_error", "_held_bytes", "_pieces", "_waiter", "ended", "headers", "status")

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._pieces: list[bytes] = []
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: str | None = None
        self.status = 0
        self.headers: dict[str, str] = {}
        """By their names in lower case; of one that came twice, the last."""
        self.ended = False
        """Whether the body has come to its end, read or not."""

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() or "application/octet-stream"

    @property
    def failed(self) -> bool:
        return self._error is not None

    async def begin(self, deadline: Deadline) -> None:
        """Wait for the head. Raises UpstreamTimeout, UpstreamError."""
        while not self.status:
            await self._wait(deadline)

    async def read(self, deadline: Deadline) -> bytes:
        """What has come of the body since it was last asked for, at least a byte; nothing at its end.

        Raises UpstreamTimeout, UpstreamError.
        """
        pieces = self._pieces
        while not pieces:
            if self.ended:
                return b""
            await self._wait(deadline)
        whole = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._held_bytes > _HELD_BYTES:
            self._connection.resume()
        self._held_bytes = 0
        return whole

    async def _wait(self, deadline: Deadline) -> None:
        if self._error is not None:
            raise UpstreamError(self._error)
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_at(deadline.at, self._late, deadline.told)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _late(self, told: str) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(UpstreamTimeout(told))

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def hold(self, piece: bytes) -> bool:
        """Keep a piece of the body; says whether that is as much as is kept."""
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        return self._held_bytes > _HELD_BYTES

    def fail(self, told: str) -> None:
        """What came before is still read; then this is raised."""
        if not self.ended and self._error is None:
            self._error = told
            self.wake()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: Any) -> None:
        self._connection.leave(self)


class Connection(asyncio.Protocol):
    """A connection to one server. `name` is the model's, for messages; `left` is told after each exchange."""

    def __init__(self, name: str, left: "Callable[[Connection], None]") -> None:
        self._name, self._left = name, left
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._parser = httptools.HttpResponseParser(self)
        # What browsers and other clients forgive, and some servers do.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_lf_after_cr=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._headers: dict[str, str] = {}
        self._mute_bytes = 0  # since the last byte of a body: of heads, and of what may come between and after
        self._skipped = self._until_eof = self._paused = False
        self._unfolds: Any = None
        self.reusable = False
        """Whether another exchange may follow the last one."""
        self.idle_since = 0.0

    def send(self, request: bytes) -> Response:
        """Begin an exchange; the connection has none."""
        assert self._transport is not None
        assert self._response is None
        self.reusable = False
        self._headers, self._mute_bytes, self._until_eof, self._unfolds = {}, 0, False, None
        response = self._response = Response(self)
        self._transport.write(request)
        return response

    def leave(self, response: Response) -> None:
        """The caller is done with its response."""
        if self._response is response:
            self._response = None
            if self.reusable and response.ended:
                self.resume()
            else:
                self.abort()
            self._left(self)

    def abort(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    def fail(self, reason: str) -> None:
        """End the exchange, if there is one, and the connection."""
        if self._response is not None:
            self._response.fail(f"{self._name} {reason}")
        self.abort()

    def resume(self) -> None:
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    # What the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class

    def data_received(self, data: bytes) -> None:
        response = self._response
        if response is None or response.ended:
            self.abort()  # nobody asked for it
            return
        self._mute_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail("broke off: its answer is no HTTP")
        if self._mute_bytes > MAX_HEAD_BYTES:
            self.fail(f"broke off: {'what follows' if response.status else 'the head of'} its answer has no end")
        response.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        response = self._response
        if response is None:
            return
        if self._until_eof and response.status and error is None:
            response.ended = True
            response.wake()
        else:
            response.fail(f"{self._name} broke off ({type(error).__name__ if error else 'connection closed'})")

    # What the parser tells

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        status, headers, response = self._parser.get_status_code(), self._headers, self._response
        self._headers = {}
        # "Continue" and early hints come before the answer; what comes after it belongs to nobody.
        self._skipped = status < 200 or response is None or response.ended
        if self._skipped or response is None:
            self.reusable = False
            return
        self._until_eof = "content-length" not in headers and "chunked" not in headers.get("transfer-encoding", "")
        encoding = headers.get("content-encoding", "identity").lower()
        if (bits := _UNFOLDS.get(encoding)) is not None:
            self._unfolds = zlib.decompressobj(bits)
        elif encoding not in {"", "identity"}:
            self.fail(f"broke off: its answer is packed in a way that was not asked for ({encoding[:32]!r})")
        response.headers, response.status = headers, status

    def on_body(self, body: bytes) -> None:
        response, self._mute_bytes = self._response, 0
        if self._skipped or response is None or response.failed:
            return
        if self._unfolds is not None:
            try:
                body = self._unfolds.decompress(body, MAX_UNFOLDED_BYTES)
            except zlib.error:
                self.fail("broke off: its answer cannot be unpacked")
                return
            if self._unfolds.unconsumed_tail:
                self.fail("broke off: its answer unpacks beyond measure")
                return
        if body and response.hold(body) and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        response = self._response
        if self._skipped or response is None:
            return
        response.ended = True
        self.reusable = self._parser.should_keep_alive() and not self._until_eof
