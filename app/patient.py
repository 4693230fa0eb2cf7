"""How long the socket waits for a client, and how much it holds for one: what uvicorn leaves open.

A request has to come within bounds of time and size, headers first, then the body; a socket's pieces and unread replies
are counted. Who keeps to none of them loses the connection, and nobody else notices. Between requests, and while a
response is on its way, uvicorn's and the response's own patience count.
"""

import asyncio
from typing import ClassVar, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_PIECES: Final = 1024  # of one message; an empty piece weighs nothing, so its size bounds no number of them
MAX_UNREAD_BYTES: Final = 4 * 1024 * 1024  # more than any event, of which the last is on its way when reading stops


class PatientProtocol(HttpToolsProtocol):
    """HTTP. One timer a connection, not one a request: a limit is kept to `look_s` exactly."""

    head_s: ClassVar[float] = 20.0  # the first byte of a connection included
    body_idle_s: ClassVar[float] = 30.0
    body_s: ClassVar[float] = 900.0  # an upload of 32 MB at 36 kB/s
    look_s: ClassVar[float] = 5.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_head, self._head_bytes = True, 0
        self._heard_at = self._since = self.loop.time()
        self._look_again()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes, self._since = True, 0, self._heard_at

    def on_headers_complete(self) -> None:
        self._in_head, self._since = False, self._heard_at
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self.loop.time()
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
                self.send_400_response("The head of the request is too long.")

    def _look_again(self) -> None:
        self._timer = self.loop.call_later(self.look_s, self._look)

    def _look(self) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return  # gone, or a WebSocket's by now
        if self._is_overdue(self.loop.time()):
            self.transport.abort()
        else:
            self._look_again()

    def _is_overdue(self, now: float) -> bool:
        if self._in_head:
            return now - self._since > self.head_s
        waits_for_body = self.cycle.more_body and not self.cycle.response_complete and not self.flow.read_paused
        return waits_for_body and (now - self._heard_at > self.body_idle_s or now - self._since > self.body_s)


class PatientSocket(WebSocketsSansIOProtocol):
    """WebSockets. Their messages are bounded by `ws_max_size`, silence by pings; here is what goes round these."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # Every ping is answered, also for a client that never reads.
        if not self.transport.is_closing() and self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_PIECES:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many pieces")
            self.handle_parser_exception()
