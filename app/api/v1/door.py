"""`/v1` for the world's clients: raw ASGI, because this path is measured in microseconds.

The guard in front has authenticated the caller and bounded the body. Here: the route, admission, the answer or its
stream, and OpenAI's error body for whatever fails. A client that goes away cancels the upstream call at once.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol

import orjson
from starlette.types import Receive, Scope, Send

from app.api.errors import status_of
from app.api.v1.shapes import BadRequest, error_json
from app.records import Payer, Principal
from app.services.quota.refusals import RateLimited
from graphs.errors import Forbidden, Missing, PilothouseError

log = logging.getLogger("pilothouse.v1")

JSON: Final = (b"content-type", b"application/json")
EVENTS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
DONE: Final = b"data: [DONE]\n\n"
FEATURE_HEADER: Final = b"x-pilothouse-feature"
_MAX_FEATURE_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece."""

    body: bytes
    status: int = 200


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer as frames of an event stream, the last one included; errors before the first frame become a status."""

    frames: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a handler gets it. `json` is the parsed body, None for a GET."""

    payer: Payer
    principal: Principal
    json: Any
    request_id: str
    path: str


class Ticket(Protocol):
    """An admitted request."""

    @property
    def headers(self) -> Mapping[str, str]: ...

    def release(self) -> None: ...


class Admits(Protocol):
    async def admit(self, payer: Payer) -> Ticket: ...


class Handler(Protocol):
    async def __call__(self, asked: Asked) -> Whole | Streamed: ...


class Door:
    """Routes by path and method; `metered` ones pass admission first."""

    def __init__(
        self, admits: Admits, metered: Mapping[tuple[str, str], Handler], free: Mapping[tuple[str, str], Handler]
    ) -> None:
        self._admits, self._metered, self._free = admits, dict(metered), dict(free)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id: str = scope["request_id"]
        headers: list[tuple[bytes, bytes]] = []
        try:
            await self._serve(scope, receive, send, headers)
        except RateLimited as error:
            await _refuse(send, error, _encoded(error.headers))
        except PilothouseError as error:
            await _refuse(send, error, headers)
        except Exception:
            # The edge of a request: the cause goes to the log under the id that the caller gets.
            log.exception("request failed", extra={"requestId": request_id})
            await _refuse(send, PilothouseError("the request failed"), headers)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        method, path = scope["method"], scope["path"]
        principal: Principal = scope["principal"]
        if not principal.may("chat"):
            raise Forbidden("this key may not call models; it needs the scope chat")
        route = (method, path)
        handler = self._metered.get(route)
        payer = _payer(scope, principal)
        if handler is None:
            await self._serve_free(route, payer, principal, scope, send)
            return
        body = await _read(receive)
        ticket = await self._admits.admit(payer)
        headers += _encoded(ticket.headers)
        try:
            asked = Asked(payer, principal, body, scope["request_id"], path)
            await _answer(handler, asked, receive, send, headers)
        finally:
            ticket.release()

    async def _serve_free(
        self, route: tuple[str, str], payer: Payer, principal: Principal, scope: Scope, send: Send
    ) -> None:
        handler = self._free.get(route)
        path = scope["path"]
        if handler is None:  # a name below a listing, /v1/models/{name}
            above = path.rsplit("/", 1)[0]
            handler = self._free.get((route[0], above + "/*"))
        if handler is None:
            raise Missing(f"there is no {route[0]} {path[:128]}")
        answer = await handler(Asked(payer, principal, None, scope["request_id"], path))
        assert isinstance(answer, Whole)
        await _send_whole(send, answer, [])


async def _answer(
    handler: Handler, asked: Asked, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]
) -> None:
    """Run the handler and send what it gives, for as long as the client is there."""
    serving = asyncio.current_task()
    assert serving is not None
    leaving = asyncio.ensure_future(_left(receive))
    gone = False

    def cancel(left: "asyncio.Future[None]") -> None:
        nonlocal gone
        if not left.cancelled():
            gone = True
            serving.cancel()

    leaving.add_done_callback(cancel)
    try:
        answer = await handler(asked)
        if isinstance(answer, Whole):
            await _send_whole(send, answer, headers)
        else:
            await _send_frames(send, answer.frames, headers, asked.request_id)
    except asyncio.CancelledError:
        if not gone:
            raise
        serving.uncancel()  # the client left: its upstream call is closed, and nobody waits for an answer
    finally:
        leaving.remove_done_callback(cancel)
        leaving.cancel()


async def _send_whole(send: Send, answer: Whole, headers: list[tuple[bytes, bytes]]) -> None:
    length = (b"content-length", str(len(answer.body)).encode())
    await send({"type": "http.response.start", "status": answer.status, "headers": [JSON, length, *headers]})
    await send({"type": "http.response.body", "body": answer.body})


async def _send_frames(
    send: Send, frames: AsyncGenerator[bytes, None], headers: list[tuple[bytes, bytes]], request_id: str
) -> None:
    """The frames; one that fails after the first is told as an error event, and no [DONE] follows."""
    begun = False
    try:
        async with aclosing(frames):
            async for frame in frames:
                if not begun:
                    begun = True
                    await send({"type": "http.response.start", "status": 200, "headers": [*EVENTS, *headers]})
                await send({"type": "http.response.body", "body": frame, "more_body": True})
    except Exception as error:
        if not begun:
            raise
        if not isinstance(error, PilothouseError):
            log.exception("stream failed", extra={"requestId": request_id})
            error = PilothouseError("the stream failed")
        frame = b"data: " + orjson.dumps(error_json(error)) + b"\n\n"
        await send({"type": "http.response.body", "body": frame, "more_body": False})
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _refuse(send: Send, error: PilothouseError, headers: list[tuple[bytes, bytes]]) -> None:
    body = orjson.dumps(error_json(error))
    extra = [*headers, (b"content-length", str(len(body)).encode())]
    if error.retry_after_s is not None:
        extra.append((b"retry-after", str(max(1, -int(-error.retry_after_s // 1))).encode()))
    status = 400 if isinstance(error, BadRequest) else status_of(error.kind, error.code)
    await send({"type": "http.response.start", "status": status, "headers": [JSON, *extra]})
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _read(receive: Receive) -> Any:
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        pieces = [body]
        while message.get("more_body"):
            message = await receive()
            pieces.append(message.get("body", b""))
        body = b"".join(pieces)
    if message["type"] == "http.disconnect":
        raise BadRequest("the client left before its request was whole")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest("the body is not JSON") from error


async def _left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _payer(scope: Scope, principal: Principal) -> Payer:
    feature = "v1"
    for name, value in scope["headers"]:
        if name == FEATURE_HEADER:
            feature = value.decode("latin-1")[:_MAX_FEATURE_CHARS]
    return Payer(principal.tenant_id, principal.user_id, principal.key_id, feature, scope["request_id"])
