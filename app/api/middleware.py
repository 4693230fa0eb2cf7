"""The guard before every route, mounted ones included: one pure ASGI class.

In this order: host, readiness, origin, credential, size; then the app. It decides by `scope["path"]`, never by a URL
that the Host header had a part in. It leaves `request_id` and `principal` in the scope, puts the security headers on
every response, writes one access line, and is the edge where unexpected failures of a request end.
"""

import logging
import time
from typing import Any, Final
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api import pages
from app.api.errors import Refused, from_error, from_http, unexpected
from app.api.public import (
    CONSOLE,
    HEALTH,
    PUBLIC,
    SESSION_COOKIE,
    V1,
    body_limit_bytes,
    in_console,
    is_open_to,
    needs_principal,
    security_headers,
)
from app.api.v1.door import Door
from app.api.v1.refusal import refusal
from app.ids import new_id
from app.records import Principal
from app.settings import Settings
from app.telemetry.redact import redact
from graphs.errors import PilothouseError, Unauthenticated

access = logging.getLogger("pilothouse.access")
log = logging.getLogger("pilothouse.api")

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
PAGES: Final = frozenset({"/", CONSOLE, CONSOLE + "/", "/login"})  # what a person opens in a browser
V1_HEADERS: Final = security_headers(V1, {})  # its answers bring none of their own
UNKNOWN: Final = "other"  # what no route of ours answered
_MAX_LOGGED_PATH: Final = 512


class Guard:
    """Wraps the whole application. The bench is `app.state.bench`, None while it opens."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._any_host = "*" in settings.allowed_hosts
        self._door: tuple[Any, Door] | None = None
        self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        state = scope["app"].state  # now: a mounted app puts itself in its place
        scope["request_id"], scope["principal"] = new_id(), None
        watched = _Watched(scope, send)
        try:
            await self._admit(scope, receive, watched)
        except (PilothouseError, HTTPException) as error:
            await watched.refuse(_refusal(scope, error), receive)
        except Exception as error:
            # The edge of a request: the cause goes to the log under the id that the caller gets.
            log.exception("request failed", extra={"requestId": scope["request_id"], "path": _path(scope)})
            if watched.status is not None:
                raise  # half an answer is out: only breaking off tells the client that it is not whole
            await watched.refuse(_refusal(scope, error), receive)
        finally:
            watched.log_line()
            self._count(scope, state.bench, watched)

    async def _admit(self, scope: Scope, receive: Receive, send: "_Watched") -> None:
        headers, path = Headers(scope=scope), scope["path"]
        self._check_host(headers)
        state = scope["app"].state
        bench = state.bench
        if (bench is None and path not in HEALTH) or (state.console_opening and in_console(path)):
            raise Refused(503, "starting", "the server is starting", retry_after_s=1)
        if scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS:
            _check_origin(headers)
        if path not in PUBLIC:
            scope["principal"] = await self._principal(scope, headers, bench)
        if scope["type"] == "http":
            limit = body_limit_bytes(self._settings, path, headers.get("content-type", ""))
            receive = _bounded(receive, headers, limit)
            if path.startswith(V1):
                await self._door_of(bench)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _count(self, scope: Scope, bench: Any, watched: "_Watched") -> None:
        if bench is not None:
            # A client that left before there was a status is counted as nginx does.
            bench.watch.metrics.request(self._pattern(scope), watched.status or 499, watched.took_s)

    def _pattern(self, scope: Scope) -> str:
        """What answered, as routes name it; never the path itself, of which there is no end."""
        path = scope["path"]
        if path.startswith(V1):
            return (self._door and self._door[1].pattern(path)) or UNKNOWN
        if in_console(path):
            return CONSOLE
        return getattr(scope.get("route"), "path", UNKNOWN)

    def _door_of(self, bench: Any) -> Door:
        """`/v1` over this bench; made at its first call."""
        if self._door is None or self._door[0] is not bench:
            # Imported here: it brings the graphs' libraries. An open bench has loaded them; the socket is not to wait.
            from app.api.v1.build import build_door

            self._door = (bench, build_door(bench))
        return self._door[1]

    def _check_host(self, headers: Headers) -> None:
        named = headers.getlist("host")
        if len(named) != 1 or not (self._any_host or _hostname(named[0]) in self._hosts):
            raise Refused(400, "unknown_host", "this server does not answer for that host", field="Host")

    async def _principal(self, scope: Scope, headers: Headers, bench: Any) -> Principal | None:
        """Who asks. None on a socket that authenticates itself, and for a scraper on this machine.

        Raises Unauthenticated, QuotaExhausted.
        """
        authorization, key = headers.get("authorization"), headers.get("x-api-key")
        if authorization is not None or key is not None:
            address = scope["client"][0] if scope.get("client") else ""
            found: Principal = await bench.access.authenticate(authorization, key, address)
            return found
        cookie = cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE)
        if cookie is not None and _same_site(scope, headers):
            seated: Principal = await bench.sessions.check(cookie)
            return seated
        peer = scope["client"][0] if scope.get("client") else ""
        if needs_principal(scope["type"], scope["path"]) and not is_open_to(peer, headers, scope["path"]):
            raise Unauthenticated("the credential is missing or not valid")
        return None


class _Watched:
    """The way out: adds headers, remembers what the access line tells."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.status: int | None = None
        self._scope, self._send = scope, send
        self._began = time.perf_counter()

    @property
    def took_s(self) -> float:
        return time.perf_counter() - self._began

    async def __call__(self, message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            self.status = message["status"]
            own = message.get("headers", ())
            added = (b"x-request-id", self._scope["request_id"].encode())
            if self._scope["path"].startswith(V1):
                extra = V1_HEADERS
            else:
                extra = security_headers(self._scope["path"], {name.lower(): value for name, value in own})
            message = {**message, "headers": [*own, added, *extra]}
        elif message["type"] == "websocket.accept":
            self.status = 101
        elif message["type"] == "websocket.close" and self.status is None:
            self.status = 403
        await self._send(message)

    async def refuse(self, response: Response, receive: Receive) -> None:
        """Answer in the app's place; a WebSocket gets the same document where the server can send one."""
        if self._scope["type"] == "http":
            await response(self._scope, receive, self)
        elif self.status == 101:
            await self({"type": "websocket.close", "code": 1011})
        elif "websocket.http.response" in self._scope.get("extensions", {}):
            head = {"type": "websocket.http.response.start", "status": response.status_code}
            await self(head | {"headers": response.raw_headers})
            await self({"type": "websocket.http.response.body", "body": response.body})
        else:
            await self({"type": "websocket.close", "code": 1008})

    def log_line(self) -> None:
        """No query strings and no credentials: paths and ids only."""
        scope, principal = self._scope, self._scope["principal"]
        access.info(
            "request",
            extra={
                "line": {
                    "requestId": scope["request_id"],
                    "method": scope.get("method", "WEBSOCKET"),
                    "path": redact(_path(scope)),
                    "status": self.status,
                    "durationMs": round(self.took_s * 1000, 2),
                    "client": scope["client"][0] if scope.get("client") else "",
                    "tenantId": principal.tenant_id if principal else "",
                    "userId": principal.user_id if principal else "",
                    "keyId": principal.key_id if principal else "",
                }
            },
        )


def _bounded(receive: Receive, headers: Headers, limit_bytes: int) -> Receive:
    """Refuse a longer body before a parser sees it: by its declared length at once, else as its bytes are counted."""
    declared = headers.get("content-length")
    if declared is not None:
        if not (declared.isascii() and declared.isdigit()):
            raise Refused(400, "malformed_request", "Content-Length is not a number", field="Content-Length")
        if len(declared) > 15 or int(declared) > limit_bytes:
            raise _too_large(limit_bytes)
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit_bytes:
                raise _too_large(limit_bytes)
        return message

    return counted


def _too_large(limit_bytes: int) -> Refused:
    return Refused(413, "too_large", f"the body may have {limit_bytes} bytes here")


def _refusal(scope: Scope, error: Exception) -> Response:
    request_id = scope["request_id"]
    if scope["path"].startswith(V1):
        told = refusal(error)
        headers = {name.decode(): value.decode() for name, value in told.headers()}
        return Response(told.body(scope["path"], request_id), told.status, headers, "application/json")
    if isinstance(error, Refused) and error.code == "starting" and _is_page_visit(scope):
        return pages.starting(retry_after_s=2)
    if isinstance(error, HTTPException):
        return from_http(error, request_id)
    if isinstance(error, Unauthenticated) and _is_page_visit(scope):
        return RedirectResponse(f"/login?next={quote(scope['path'])}" if scope["path"] != "/" else "/login", 302)
    return from_error(error, request_id) if isinstance(error, PilothouseError) else unexpected(request_id)


def _is_page_visit(scope: Scope) -> bool:
    """Whether a person in a browser asks for a page, and is better served by a page than by a problem document."""
    if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] not in PAGES:
        return False
    return "text/html" in Headers(scope=scope).get("accept", "")


def _check_origin(headers: Headers) -> None:
    """A page of another site may make the browser send, but not what only our own pages can."""
    origin = headers.get("origin")
    if origin is not None and not _is_ours(origin, headers):
        raise Refused(403, "foreign_origin", "the request comes from another site", field="Origin")


def _same_site(scope: Scope, headers: Headers) -> bool:
    """Whether a cookie counts. For the console always, the browser keeps SameSite; the API asks for more than that."""
    if in_console(scope["path"]):
        return True
    origin, fetched_from = headers.get("origin"), headers.get("sec-fetch-site")
    if origin is not None:
        return _is_ours(origin, headers)
    if fetched_from is not None:
        return fetched_from in {"same-origin", "none"}
    return scope["type"] == "http" and scope["method"] in SAFE_METHODS


def _is_ours(origin: str, headers: Headers) -> bool:
    try:
        return urlsplit(origin).netloc.lower() == headers["host"].lower()
    except ValueError:
        return False


def _hostname(host: str) -> str:
    """The Host header without its port; an IPv6 address keeps its brackets."""
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()


def _path(scope: Scope) -> str:
    return str(scope["path"])[:_MAX_LOGGED_PATH]
