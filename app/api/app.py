"""The HTTP application: routes, the guard before them, and the shape of refusals. `app.main` gives it a bench."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any, Final

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.routing import Route
from starlette.types import Lifespan, Receive, Scope, Send

from app.api import (
    alerts,
    approvals,
    audit,
    chat,
    collections,
    conversations,
    documents,
    erasures,
    errors,
    escalations,
    feedback,
    health,
    jobs,
    keys,
    login,
    metrics,
    runs,
    search,
    switches,
    tables,
    tickets,
    usage,
    ws,
)
from app.api.mcp.door import MCP, METHODS, McpDoor
from app.api.middleware import Guard
from app.api.public import CONSOLE, V1
from app.api.views import Problem
from app.settings import Settings
from graphs.errors import PilothouseError

ROUTERS: Final = (
    health.router,
    login.router,
    chat.router,
    ws.router,
    conversations.router,
    runs.router,
    feedback.router,
    approvals.router,
    tickets.router,
    escalations.router,
    documents.router,
    collections.router,
    tables.router,
    search.router,
    jobs.router,
    keys.router,
    usage.router,
    switches.router,
    alerts.router,
    audit.router,
    erasures.router,
    metrics.router,
)
_REFUSALS: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": Problem, "description": description}
    for status, description in {
        400: "The request is malformed.",
        401: "No credential, or one that does not hold.",
        403: "The credential lacks a scope.",
        404: "No such thing, or none that this caller may know of.",
        422: "A field is wrong; `errors` names each.",
        429: "Too much; `Retry-After` says when again.",
        503: "Starting, or a store is away; `Retry-After` says when again.",
    }.items()
}


class Api(FastAPI):
    """FastAPI with a short way to `/v1`, whose guard has no use for the middleware that stands before the others'."""

    v1: Guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith(V1):
            scope["app"] = self
            await self.v1(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_api(settings: Settings, *, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The API without a bench: until `state.bench` is set, everything but health answers 503.

    So does the console while `state.console_opening`.
    """
    mcp = McpDoor()
    api = Api(
        title="Pilothouse",
        summary="Chat, RAG and tool agents whose every answer can be opened up.",
        version="0.1.0",
        lifespan=_closing(mcp, lifespan),
        # FastAPI's own pages fetch scripts from a CDN.
        docs_url=None,
        redoc_url=None,
        responses=_REFUSALS,
        # A redirect to the path with or without a slash would be built from the Host header.
        redirect_slashes=False,
    )
    api.state.bench, api.state.console_opening = None, False
    api.state.sockets = Counter()
    for router in ROUTERS:
        api.include_router(router)
    api.add_route("/", _home, methods=["GET"], include_in_schema=False)
    api.router.routes.append(Route(MCP, mcp, methods=METHODS, include_in_schema=False))
    api.add_exception_handler(PilothouseError, errors.on_pilothouse_error)
    api.add_exception_handler(HTTPException, errors.on_http_exception)
    api.add_exception_handler(RequestValidationError, errors.on_validation_error)
    api.add_middleware(Guard, settings=settings)
    api.v1 = Guard(api, settings)
    return api


def _closing(mcp: McpDoor, lifespan: Lifespan[FastAPI] | None) -> Lifespan[FastAPI]:
    """The same, with the door's sessions ended before what they use is closed."""

    @asynccontextmanager
    async def living(api: FastAPI) -> AsyncIterator[None]:
        async with lifespan(api) if lifespan else nullcontext():
            try:
                yield
            finally:
                await mcp.close()

    return living


async def _home(_: object) -> RedirectResponse:
    return RedirectResponse(CONSOLE, 303)
