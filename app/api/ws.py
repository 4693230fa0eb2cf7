"""WS /api/ai/chat/ws: the events of `POST /chat` as JSON messages `{id, type, data}`, one run at a time.

Who has no header or session to show sends `{"type": "auth", "key": ...}` first. Then `{"type": "chat", ...}` with the
fields of POST /chat, and `{"type": "cancel"}`. Closing the socket detaches: the run may be taken up again at any
process, by SSE or by `{"type": "attach", "requestId": ..., "after": 7}`, where `after` is the last id that was seen.
"""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from fastapi import APIRouter, WebSocket
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocketDisconnect, WebSocketState

from app.api.body import loads
from app.api.chat import run_request
from app.api.deps import Bench
from app.api.errors import Refused, field_errors
from app.api.public import small_body_bytes
from app.api.schemas import AttachIn, ChatIn
from app.api.stream import dumps, guarded
from app.live import LAST_EVENTS
from app.records import Principal, RunEvent
from graphs.errors import Conflict, Forbidden, Invalid, PilothouseError, QuotaExhausted, Unauthenticated

router = APIRouter()
log = logging.getLogger("pilothouse.api")

AUTH_WAIT_S: Final = 10.0
MAX_MISTAKES: Final = 10
MAX_SOCKETS: Final = 32  # open at once for one user

POLICY, TOO_BIG, NOT_TEXT = 1008, 1009, 1003


class Closed(Exception):
    """The conversation is over; `code` and `reason` go into the close frame."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@router.websocket("/api/ai/chat/ws")
async def chat_socket(socket: WebSocket, bench: Bench) -> None:
    await socket.accept()
    talk = _Talk(socket, bench)
    try:
        principal = await talk.authenticated()
        with _seat(socket, principal):
            await talk.serve(principal)
    except Closed as end:
        await _close(socket, end)
    except (WebSocketDisconnect, TimeoutError):
        await _close(socket, Closed(POLICY, "no message came"))
    finally:
        await talk.detach()


class _Talk:
    """One socket: what it is running and how often it erred."""

    def __init__(self, socket: WebSocket, bench: Bench) -> None:
        self._socket, self._bench = socket, bench
        self._limit_bytes = small_body_bytes(bench.settings)
        self._forwarding: set[asyncio.Task[None]] = set()
        self._run_id = ""
        self._ended = True
        self._mistakes = 0

    async def authenticated(self) -> Principal:
        """The principal of the handshake, or of a first message that comes in time. Raises Closed."""
        if self._socket.scope["principal"] is None:
            async with asyncio.timeout(AUTH_WAIT_S):
                message = await self._read()
            key = message.get("key") if message.get("type") == "auth" else None
            address = self._socket.client.host if self._socket.client else ""
            try:
                found = await self._bench.access.authenticate(None, key if isinstance(key, str) else None, address)
            except (Unauthenticated, QuotaExhausted) as error:
                raise Closed(POLICY, error.message) from error
            self._socket.scope["principal"] = found
            await self._send(0, "auth.accepted", {})
        principal: Principal = self._socket.scope["principal"]
        return principal

    async def serve(self, principal: Principal) -> None:
        while True:
            try:
                message = await self._read()
                await self._obey(principal, message)
            except (PilothouseError, HTTPException, ValidationError) as error:
                await self._send(0, "error", _explained(error))
                self._mistakes += 1
                if self._mistakes >= MAX_MISTAKES:
                    raise Closed(POLICY, "too many mistakes") from error

    async def detach(self) -> None:
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)

    async def _obey(self, principal: Principal, message: dict[str, Any]) -> None:
        match message.pop("type", None):
            case "chat" if not self._ended:
                raise Conflict("a run is in flight on this socket")
            case "chat":
                now = await self._as_now(principal)
                self._follow(now, await self._bench.runner.start(now, run_request(ChatIn.model_validate(message))))
            case "attach" if not self._ended:
                raise Conflict("a run is in flight on this socket")
            case "attach":
                await self._as_now(principal)
                asked = AttachIn.model_validate(message)
                await self._bench.runner.card(principal, asked.request_id)  # an unknown run is an error at once
                self._follow(principal, asked.request_id, asked.after)
            case "cancel" if self._run_id:
                await self._bench.runner.cancel(principal, self._run_id)
            case "cancel":
                raise Conflict("nothing runs on this socket")
            case _:
                raise Invalid("type must be chat, attach or cancel", field="type")

    def _follow(self, principal: Principal, run_id: str, after: int = 0) -> None:
        self._run_id, self._ended = run_id, False
        task = asyncio.create_task(self._forward(principal, run_id, after))
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)

    async def _as_now(self, principal: Principal) -> Principal:
        """A socket may outlive its key, and the key be put into other groups."""
        if principal.key_id:
            if (key := await self._bench.store.keys.find(principal.key_id)) is None:
                raise Closed(POLICY, "the key is no longer valid")
            principal = replace(principal, groups=frozenset(key.groups))
        if not principal.may("chat"):
            raise Forbidden("this credential lacks the scope chat")
        return principal

    async def _forward(self, principal: Principal, run_id: str, after: int) -> None:
        try:
            async with aclosing(guarded(self._bench.runner.events(principal, run_id, after))) as events:  # type: ignore[type-var]
                async for event in events:
                    # Before it is sent: who has heard the end may ask again at once.
                    self._ended = event.type in LAST_EVENTS
                    await self._tell(event)
        except (WebSocketDisconnect, RuntimeError):
            # Starlette raises RuntimeError for a send after the close; the reading side ends the talk.
            log.info("a socket was left", extra={"requestId": run_id})
        finally:
            if run_id == self._run_id:
                self._ended = True

    async def _read(self) -> dict[str, Any]:
        """One message. Raises Closed for frames that are too big or not text, Refused for what is not an object."""
        frame = await self._socket.receive()
        if frame["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(frame.get("code", 1005))
        text = frame.get("text")
        if text is None:
            raise Closed(NOT_TEXT, "messages are JSON text")
        body = text.encode("utf-8", "replace")
        if len(body) > self._limit_bytes:
            raise Closed(TOO_BIG, f"a message may have {self._limit_bytes} bytes")
        found = loads(body)
        if not isinstance(found, dict):
            raise Refused(400, "malformed_json", "a message is a JSON object")
        return found

    async def _tell(self, event: RunEvent) -> None:
        await self._send(event.number, event.type, dict(event.data))

    async def _send(self, number: int, type_: str, data: Any) -> None:
        """Number 0 marks what is not an event of a run; its id is null."""
        await self._socket.send_text(dumps({"id": number or None, "type": type_, "data": data}).decode())


class _seat:  # noqa: N801 - reads as a phrase in `with`
    """Counts a user's open sockets in this process. Raises Closed where there are too many."""

    def __init__(self, socket: WebSocket, principal: Principal) -> None:
        self._open = socket.app.state.sockets
        self._who = (principal.tenant_id, principal.user_id)

    def __enter__(self) -> None:
        if self._open[self._who] >= MAX_SOCKETS:
            raise Closed(POLICY, f"{MAX_SOCKETS} sockets are open already")
        self._open[self._who] += 1

    def __exit__(self, *_: object) -> None:
        self._open[self._who] -= 1
        if not self._open[self._who]:
            del self._open[self._who]


def _explained(error: PilothouseError | HTTPException | ValidationError) -> dict[str, Any]:
    match error:
        case ValidationError():
            errors = field_errors(error.errors(include_input=False, include_url=False))
            return {"code": "invalid_input", "message": errors[0]["message"], "errors": errors}
        case PilothouseError():
            return {"code": error.code, "message": error.message, "field": error.field}
        case Refused():
            return {"code": error.code, "message": error.detail}
        case _:
            return {"code": "refused", "message": error.detail}


async def _close(socket: WebSocket, end: Closed) -> None:
    if socket.client_state == WebSocketState.CONNECTED and socket.application_state == WebSocketState.CONNECTED:
        await socket.close(end.code, end.reason[:120])
