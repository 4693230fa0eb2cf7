"""A model server that speaks OpenAI's wire as a test tells it to, on a loopback port."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from aiohttp import web

from app.services.gateway.embedding import embedding_info
from app.services.gateway.embedding_openai import OpenAiEmbeddings
from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.provider import Timeouts
from app.services.gateway.server import ModelServer
from graphs.types import ModelInfo

Answer = Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
Server = TypeVar("Server", bound="FakeServer")
KEY = "sk-test-3f9a1c"
SHORT = Timeouts(connect_s=1.0, first_token_s=0.3, between_tokens_s=0.3, total_s=1.0)


@dataclass
class FakeServer:
    """`requests` are the bodies so far; `asked` is set by the first, `gone` by a caller who left before the end."""

    answer: Answer
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json(loads=orjson.loads)
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.connections.add(request.transport)
        self.asked.set()
        try:
            return await self.answer(request, body)
        except (asyncio.CancelledError, ConnectionResetError):
            self.gone.set()
            raise


class FakeOpenAi(FakeServer):
    def provider(self, timeouts: Timeouts | None = None, **given: Any) -> OpenAiProvider:
        info = ModelInfo(
            name=given.pop("name", "gpt-test"),
            version=given.pop("version", ""),
            provider="openai",
            context_tokens=8_192,
            max_output_tokens=512,
            native_tools=True,
        )
        return OpenAiProvider(info, ModelServer(f"{self.url}/v1", KEY, timeouts or Timeouts()), **given)

    def embeddings(self, **given: Any) -> OpenAiEmbeddings:
        info = embedding_info(given.pop("name", "embed-test"), "openai", 8_192)
        server = ModelServer(f"{self.url}/v1", KEY, given.pop("timeouts", None) or Timeouts())
        return OpenAiEmbeddings(info, server, **given)


@asynccontextmanager
async def serving(fake: Server, *paths: str) -> AsyncIterator[Server]:
    """The fake on a loopback port, its `url` set."""
    app = web.Application(client_max_size=1 << 24)
    for path in paths:
        app.router.add_post(path, fake.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield fake
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fake_openai(answer: Answer) -> AsyncIterator[FakeOpenAi]:
    async with serving(FakeOpenAi(answer), "/v1/chat/completions", "/v1/embeddings") as fake:
        yield fake


def chunk(
    text: str | None = None, *, finish: str | None = None, delta: dict[str, Any] | None = None, **fields: Any
) -> dict[str, Any]:
    """A chunk as OpenAI sends it; `fields` are laid over its top level."""
    piece = delta if delta is not None else ({} if text is None else {"content": text})
    return {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1_741_570_283,
        "model": "gpt-test-2026-01-01",
        "system_fingerprint": "fp_44709d6fcb",
        "choices": [{"index": 0, "delta": piece, "logprobs": None, "finish_reason": finish}],
        "usage": None,
    } | fields


USAGE = {"prompt_tokens": 19, "completion_tokens": 3, "total_tokens": 22, "prompt_tokens_details": {"cached_tokens": 0}}
GREETING = (
    chunk(delta={"role": "assistant", "content": "", "refusal": None}),
    chunk("Hello"),
    chunk(", "),
    chunk("world"),
    chunk(finish="stop"),
    chunk(choices=[], usage=USAGE),
)


def calling(**function: Any) -> dict[str, Any]:
    """A chunk that asks for a tool in one piece."""
    return chunk(delta={"tool_calls": [{"index": 0, "function": function}]})


def event(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def events(*chunks: Any, done: bool = True) -> bytes:
    return b"".join(map(event, chunks)) + (b"data: [DONE]\n\n" if done else b"")


def sends(
    *pieces: bytes,
    status: int = 200,
    kind: str = "text/event-stream",
    cut: bool = False,
    pause_s: float = 0.0,
    **headers: str,
) -> Answer:
    """An answer of these bytes, one write each, `pause_s` apart; `cut` breaks the connection after them."""

    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        response = web.StreamResponse(status=status, headers={"Content-Type": kind, **named})
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(pause_s)
        if cut and request.transport is not None:
            request.transport.abort()
        return response

    return answer


def sends_json(body: Any, status: int = 200, **given: Any) -> Answer:
    """An answer in one piece of JSON."""
    return sends(orjson.dumps(body), status=status, kind="application/json", **given)


def drips(*first: bytes, then: bytes = b"", every_s: float = 0.02) -> Answer:
    """Sends `first`, then `then` again and again (or nothing) and never ends by itself."""

    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for piece in first:
            await response.write(piece)
        while True:
            await asyncio.sleep(every_s)
            if then:
                await response.write(then)

    return answer


async def never(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    """Takes the request and gives no head."""
    await asyncio.Event().wait()
    raise AssertionError
