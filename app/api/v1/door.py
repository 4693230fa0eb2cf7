"""`/v1` for the world's clients: raw ASGI, because this path is measured in microseconds.

The guard in front has authenticated the caller and bounded the body. Here: the route, admission, the answer or its
stream, and for whatever fails the error body of the client's wire. A client that goes away cancels the upstream call
at once.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from starlette.types import Receive, Scope, Send

from app.api.errors import Refused
from app.api.v1.client import DONE, JSON, PATIENCE_S, Client, Headers, Streamed, Whole
from app.api.v1.reading import loads, read
from app.api.v1.refusal import refusal
from app.records import Payer, Principal
from app.services.quota.refusals import RateLimited
from graphs.errors import Forbidden, Missing, PilothouseError

log = logging.getLogger("pilothouse.v1")

FEATURE_HEADER: Final = b"x-pilothouse-feature"
_MAX_FEATURE_CHARS: Final = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as a handler gets it. `json` is the parsed body, None for a GET, `sent` are its headers.

    `headers` are the answer's own; a handler may add to them until its answer's first frame is made.
    """

    payer: Payer
    principal: Principal
    json: Any
    request_id: str
    path: str
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    sent: Sequence[tuple[bytes, bytes]] = ()


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
    """Routes by path and method; `metered` ones pass admission first. A path that ends in `/*` takes all below it."""

    def __init__(
        self,
        admits: Admits,
        metered: Mapping[tuple[str, str], Handler],
        free: Mapping[tuple[str, str], Handler],
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._admits, self._metered, self._free = admits, dict(metered), dict(free)
        self._patience_s = patience_s
        self._patterns = frozenset(path for _, path in (*self._metered, *self._free))
        self._serving: dict[Client, Payer] = {}

    def pattern(self, path: str) -> str | None:
        """The path as routes name it, `/v1/models/*`; None for one that is not served."""
        if path in self._patterns:
            return path
        return next((known for known in self._patterns if known.endswith("/*") and path.startswith(known[:-1])), None)

    def stop(self, whose: Callable[[Payer], bool], error: PilothouseError) -> int:
        """End with `error` what is being answered to those payers. Gives how many."""
        clients = [client for client, payer in self._serving.items() if whose(payer)]
        for client in clients:
            client.stop(error)
        return len(clients)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers: list[tuple[bytes, bytes]] = []
        try:
            await self._serve(scope, receive, send, headers)
        except (PilothouseError, Refused) as error:
            if isinstance(error, RateLimited):
                headers = _encoded(error.headers)
            await _refuse(scope, send, error, headers)
        except Exception as error:
            # The edge of a request: the cause goes to the log under the id that the caller gets.
            log.exception("request failed", extra={"requestId": scope["request_id"]})
            await _refuse(scope, send, error, headers)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]]) -> None:
        principal: Principal = scope["principal"]
        if not principal.may("chat"):
            raise Forbidden("this key may not call models; it needs the scope chat")
        path, request_id = scope["path"], scope["request_id"]
        payer = _payer(scope, principal)
        handler = self._metered.get((scope["method"], path))
        if handler is None:
            answer = await self._free_handler(scope["method"], path)(Asked(payer, principal, None, request_id, path))
            with Client(receive, send, self._patience_s) as client:
                await client.take(answer, headers, request_id)
            return
        asked = Asked(payer, principal, loads(await read(receive)), request_id, path, headers, scope["headers"])
        with Client(receive, send, self._patience_s) as client:
            self._serving[client] = payer
            try:
                await self._answer(client, handler, asked, headers)
            finally:
                del self._serving[client]

    async def _answer(self, client: Client, handler: Handler, asked: Asked, headers: list[tuple[bytes, bytes]]) -> None:
        ticket = await self._admits.admit(asked.payer)
        headers += _encoded(ticket.headers)
        try:
            await client.take(await handler(asked), headers, asked.request_id)
        finally:
            ticket.release()

    def _free_handler(self, method: str, path: str) -> Handler:
        """Raises Missing, Refused (405)."""
        handler = self._free.get((method, path))
        if handler is not None:
            return handler
        for (known, above), handler in self._free.items():
            if known == method and above.endswith("/*") and path.startswith(above[:-1]):
                return handler
        if any(path == known for _, known in (*self._metered, *self._free)):
            raise Refused(405, "method_not_allowed", f"{method} is not served here")
        raise Missing(f"there is no {method} {path[:128]}")


async def _refuse(scope: Scope, send: Send, error: Exception, headers: Headers) -> None:
    told = refusal(error)
    body = told.body(scope["path"], scope["request_id"])
    length = (b"content-length", str(len(body)).encode())
    await send(
        {"type": "http.response.start", "status": told.status, "headers": [JSON, length, *headers, *told.headers()]}
    )
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


def _payer(scope: Scope, principal: Principal) -> Payer:
    feature = "v1"
    for name, value in scope["headers"]:
        if name == FEATURE_HEADER:
            feature = value.decode("latin-1")[:_MAX_FEATURE_CHARS]
    return Payer(principal.tenant_id, principal.user_id, principal.key_id, feature, scope["request_id"])


__all__ = ["DONE", "Asked", "Door", "Streamed", "Whole"]
