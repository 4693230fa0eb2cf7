"""How the socket speaks HTTP: our patient protocol, with a response's head and the beginning of its body in one write.

uvicorn writes each by itself. That is one call of the kernel more for every response, and a client that is woken twice.
"""

import asyncio
from typing import Any, Final, cast

from app.patient import PatientProtocol

_HEAD: Final = b"HTTP/1.1 "


class JoinedProtocol(PatientProtocol):
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, _Joined(transport, self.loop)))


class _Joined:
    """A transport that holds a head back for what follows in the same turn of the loop."""

    __slots__ = ("_head", "_loop", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._let_out)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._let_out()
        self._transport.close()

    def _let_out(self) -> None:
        """A head whose body takes longer does not wait for it."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
