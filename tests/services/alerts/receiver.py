"""A webhook's other end: a real server on a real socket, which answers as told and remembers what it got."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Receiver:
    """`answer` says how the next request is answered; `bodies` are what came."""

    url: str = ""
    answer: Callable[[], web.StreamResponse] = web.Response
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    raw: list[bytes] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    got = Receiver()

    async def take(request: web.Request) -> web.StreamResponse:
        got.paths.append(request.path)
        got.headers.append(dict(request.headers))
        got.raw.append(await request.read())
        got.bodies.append(await request.json())
        return got.answer()

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", take)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    got.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook?token=canary-hook-token"
    try:
        yield got
    finally:
        await runner.cleanup()
