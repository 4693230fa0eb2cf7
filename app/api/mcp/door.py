"""`/mcp`: the door for MCP clients, streamable HTTP by the official SDK behind our own guard.

Who calls is known by then, and Host, Origin, size and credential are checked. A session of the older revisions belongs
to the credential that opened it; for another one it is not there. Nothing is sent to clients that they did not ask for,
so there is no stream to open with GET.
"""

import asyncio
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from app.api.body import loads
from app.api.errors import Refused
from app.ids import new_id
from app.records import Principal

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

MCP: Final = "/mcp"
METHODS: Final = ("GET", "POST", "DELETE")
_ANSWERED: Final = ("POST", "DELETE")
IDLE_S: Final = 600.0
MAX_SESSIONS: Final = 2_000
MAX_SESSIONS_EACH: Final = 32  # of one credential
LEFT: Final = "mcp.left"  # in the scope: an event that is set when the answer is out, or nobody waits for it
_SESSION: Final = "mcp-session-id"
_VERSION: Final = "mcp-protocol-version"


class McpDoor:
    """An ASGI application. The SDK is loaded, and its tasks begin, at the first request; `close` ends them."""

    def __init__(self) -> None:
        self._opening = asyncio.Lock()
        self._manager: StreamableHTTPSessionManager | None = None
        self._serving: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()
        self._seen: dict[str, tuple[str, float]] = {}  # session id: whose it is, and when it was last used

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _ANSWERED:
            told = "there is no stream to open here; send a POST"
            raise HTTPException(405, told, headers={"Allow": ", ".join(_ANSWERED)})
        manager = await self._open()
        headers, ends = Headers(scope=scope), scope["method"] == "DELETE"
        session, whose = headers.get(_SESSION), owner_of(scope["principal"])
        opening = new_id() if session is None and opens_session(headers) else ""
        if opening:
            self._check_room(whose)
            self._seen[opening] = (whose, time.monotonic())  # held until the session is there: many may come at once
        if session is not None:
            self._seen[session] = (self._seen.get(session, (whose, 0.0))[0], time.monotonic())
        left = asyncio.Event()
        try:
            if scope["method"] == "POST":
                receive = await _checked(receive)
            send = self._watched(send, session, whose, opening, ends=ends)
            await manager.handle_request({**scope, "user": _user(whose), LEFT: left}, receive, send)
        finally:
            left.set()
            self._seen.pop(opening, None)

    async def close(self) -> None:
        """End all sessions, and what they wait for."""
        self._closing.set()
        if self._serving is not None:
            await asyncio.wait({self._serving})

    async def _open(self) -> "StreamableHTTPSessionManager":
        async with self._opening:
            if self._manager is None:
                # Off the loop and only now: it takes a second, which those who never ask do not wait for.
                built = await asyncio.to_thread(_built)
                serving = asyncio.Event()
                self._serving = asyncio.create_task(self._serve(built, serving), name="serve mcp")
                await serving.wait()
                self._manager = built
            return self._manager

    async def _serve(self, manager: "StreamableHTTPSessionManager", serving: asyncio.Event) -> None:
        try:
            async with manager.run():
                serving.set()
                await self._closing.wait()
        finally:
            serving.set()  # who waits for it is told by the manager why it does not run

    def _check_room(self, whose: str) -> None:
        """Raises Refused: one credential must not take the sessions of all others."""
        since = time.monotonic() - IDLE_S
        self._seen = {session: seen for session, seen in self._seen.items() if seen[1] > since}
        if sum(owner == whose for owner, _ in self._seen.values()) >= MAX_SESSIONS_EACH:
            told = f"this credential has {MAX_SESSIONS_EACH} MCP sessions; end one"
            raise Refused(429, "quota_exhausted", told, retry_after_s=IDLE_S)

    def _watched(self, send: Send, session: str | None, whose: str, opening: str, *, ends: bool) -> Send:
        """Note which sessions begin, and which have ended."""

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun = dict(message.get("headers", ())).get(_SESSION.encode())
                over = message["status"] == 404 or (ends and message["status"] < 400)
                if session is None and begun is not None:
                    self._seen.pop(opening, None)
                    self._seen[begun.decode()] = (whose, time.monotonic())
                elif session is not None and over and self._seen.get(session, ("",))[0] == whose:
                    del self._seen[session]
            await send(message)

        return watched


def owner_of(principal: Principal) -> str:
    """What two requests have to share for one to go on with the other's session."""
    return json.dumps([principal.tenant_id, principal.user_id, principal.key_id])


def opens_session(headers: Mapping[str, str]) -> bool:
    """Whether it is of a revision that has sessions; what comes without one then begins one."""
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS  # loaded with the SDK by now

    return headers.get(_VERSION, HANDSHAKE_PROTOCOL_VERSIONS[0]) in HANDSHAKE_PROTOCOL_VERSIONS


def _built() -> "StreamableHTTPSessionManager":
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from app.api.mcp.server import build_server

    return StreamableHTTPSessionManager(build_server(), session_idle_timeout=IDLE_S, max_sessions=MAX_SESSIONS)


def _user(whose: str) -> Any:
    """The caller as the SDK compares the owners of sessions."""
    from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
    from mcp.server.auth.provider import AccessToken

    return AuthenticatedUser(AccessToken(token="", client_id=whose, scopes=[]))


async def _checked(receive: Receive) -> Receive:
    """The body once more, after it has passed what all JSON of ours passes. Raises Refused."""
    body = bytearray()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        body += message.get("body", b"")
        more = message.get("more_body", False)
    held: list[Message] = [{"type": "http.request", "body": json.dumps(loads(bytes(body))).encode()}]

    async def again() -> Message:
        return held.pop() if held else await receive()

    return again
