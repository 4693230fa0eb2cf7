"""A model server on OpenAI's wire, in a thread of its own, that does what the last message says.

`say TEXT`, `spell TEXT` (a character a chunk, with log-probabilities), `call NAME JSON`, `mute TEXT` (no usage),
`burst TEXT` (in one write), `cut [TEXTS]` (JSON; a text a chunk), `hold` (a piece, then silence), `wait` (no head),
`break`, `status N`, `send JSON` (only that event), `endless`. `hold MODEL` and `wait MODEL` are for that model; another
says its name.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 7,
    "total_tokens": 26,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}


@dataclass
class Upstream:
    """`asked` and `left` are set by a caller of `hold`, `wait` and `endless`; `sent_bytes` is what `endless` sent."""

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    sent_bytes: int = 0

    @property
    def last(self) -> dict[str, Any]:
        return self.requests[-1]

    def forget(self) -> None:
        self.requests.clear()
        self.asked.clear()
        self.left.clear()
        self.sent_bytes = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json(loads=orjson.loads)
        self.requests.append(body)
        told = "".join(_texts(body["messages"][-1]))
        order, _, rest = told.partition(" ")
        try:
            if order in {"hold", "wait", "endless"} and rest in ("", body["model"]):
                return await self._linger(request, order)
            if order == "status":
                return _failed(int(rest))
            if body["stream"]:
                return await _stream(request, body, order, rest)
            if order == "break":
                _cut(request)
                return web.Response()
            return web.json_response(_whole(body, order, rest), dumps=lambda value: orjson.dumps(value).decode())
        except (asyncio.CancelledError, ConnectionError):
            self.left.set()
            raise

    async def _linger(self, request: web.Request, order: str) -> web.StreamResponse:
        self.asked.set()
        if order != "wait":
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            await response.write(_event(_chunk({"role": "assistant", "content": "One "})))
            while order == "endless":
                piece = _event(_chunk({"content": "endless " * 1_000}))
                await response.write(piece)
                self.sent_bytes += len(piece)
        await asyncio.Event().wait()
        raise AssertionError

    async def embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json(loads=orjson.loads)
        self.requests.append(body)
        data = [
            {"object": "embedding", "index": index, "embedding": [float(len(text)), 0.5, -0.25]}
            for index, text in enumerate(body["input"])
        ]
        usage = {"prompt_tokens": 3 * len(data), "total_tokens": 3 * len(data)}
        return web.json_response({"object": "list", "data": data, "model": "embed-1", "usage": usage})


async def _stream(request: web.Request, body: dict[str, Any], order: str, rest: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if order == "burst":  # all in one piece
        await response.write(b"".join([event async for event in _events(body, order, rest)]) + b"data: [DONE]\n\n")
        return response
    async for event in _events(body, order, rest):
        await response.write(event)
    if order == "break":
        _cut(request)
        return response
    await response.write(b"data: [DONE]\n\n")
    return response


async def _events(body: dict[str, Any], order: str, rest: str) -> AsyncIterator[bytes]:
    if order == "send":
        yield _event(json.loads(rest))
        return
    for index in range(body.get("n") or 1):
        for delta, logprobs in _deltas(order, rest):
            yield _event(_chunk(delta, index=index, logprobs=logprobs))
            await asyncio.sleep(0)
        if order != "break":
            yield _event(_chunk({}, index=index, finish="tool_calls" if order == "call" else "stop"))
    if order not in {"mute", "break"}:
        yield _event(_chunk({}) | {"choices": [], "usage": USAGE})


def _deltas(order: str, rest: str) -> Iterator[tuple[dict[str, Any], Any]]:
    yield {"role": "assistant", "content": None if order == "call" else ""}, None
    if order == "call":
        name, _, arguments = rest.partition(" ")
        opening = {"index": 0, "id": "call_1", "type": "function", "function": {"name": name, "arguments": ""}}
        yield {"tool_calls": [opening]}, None
        for place in range(0, len(arguments), 5):
            piece = {"index": 0, "function": {"arguments": arguments[place : place + 5]}}
            yield {"tool_calls": [piece]}, None
    elif order == "spell":
        for character in rest:
            yield {"content": character}, {"content": [_logprob(character)], "refusal": None}
    elif order == "cut":
        for piece in json.loads(rest):
            yield {"content": piece}, None
    else:
        for word in rest.replace(" ", " \0").split("\0"):
            yield {"content": word}, None


def _whole(body: dict[str, Any], order: str, rest: str) -> Any:
    if order == "send":
        return json.loads(rest)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(json.loads(rest)) if order == "cut" else rest}
    logprobs = None
    if order == "call":
        name, _, arguments = rest.partition(" ")
        call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    if order == "spell":
        logprobs = {"content": [_logprob(character) for character in rest], "refusal": None}
    finish = "tool_calls" if order == "call" else "stop"
    choices = [
        {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}
        for index in range(body.get("n") or 1)
    ]
    answer = _chunk({}) | {"object": "chat.completion", "choices": choices, "usage": USAGE}
    return answer if order != "mute" else {**answer, "usage": None}


def _logprob(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}


def _chunk(delta: dict[str, Any], *, index: int = 0, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    return {
        "id": "chatcmpl-up",
        "object": "chat.completion.chunk",
        "created": 1_741_570_283,
        "model": "served-1",
        "choices": [{"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}],
    }


def _event(data: Any) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def _texts(message: dict[str, Any]) -> Iterator[str]:
    content = message.get("content") or ""
    if isinstance(content, str):
        yield content
    else:
        yield from (part["text"] for part in content if isinstance(part.get("text"), str))


def _failed(status: int) -> web.Response:
    code = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}.get(status, "failed")
    body = {"error": {"message": "The prompt said: canary", "type": "x", "code": code}}
    return web.json_response(body, status=status, headers={"Retry-After": "30"} if status == 429 else None)


def _cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()


@contextmanager
def upstream() -> Iterator[Upstream]:
    made, ready, loop = Upstream(), threading.Event(), asyncio.new_event_loop()
    ending = asyncio.Event()

    async def serve() -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", made.handle)
        app.router.add_post("/v1/embeddings", made.embed)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()
        await ending.wait()
        await runner.cleanup()

    def run() -> None:
        loop.run_until_complete(serve())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield made
    finally:
        loop.call_soon_threadsafe(ending.set)
        thread.join(10)
