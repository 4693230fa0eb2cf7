"""A model server that speaks Anthropic's Messages API as a test tells it to; what it sends has the API's own shapes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from app.services.gateway.anthropic import AnthropicProvider
from app.services.gateway.provider import Timeouts
from app.services.gateway.server import ModelServer
from graphs.types import ModelInfo
from tests.fake_openai import KEY, Answer, FakeServer, serving

USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 3,
    "output_tokens": 1,
    "service_tier": "standard",
}
SPENT = {"output_tokens": 7}


class FakeAnthropic(FakeServer):
    def provider(self, timeouts: Timeouts | None = None, **given: Any) -> AnthropicProvider:
        info = ModelInfo(
            name=given.pop("name", "claude-test"),
            version=given.pop("version", ""),
            provider="anthropic",
            context_tokens=8_192,
            max_output_tokens=512,
            native_tools=True,
        )
        return AnthropicProvider(info, ModelServer(self.url, KEY, timeouts or Timeouts()), **given)


@asynccontextmanager
async def fake_anthropic(answer: Answer) -> AsyncIterator[FakeAnthropic]:
    async with serving(FakeAnthropic(answer), "/v1/messages") as fake:
        yield fake


def start(usage: Any = USAGE, **fields: Any) -> dict[str, Any]:
    """The first event; `fields` are laid over its message."""
    message = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-test-20260101",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }
    return {"type": "message_start", "message": message | fields}


def block(index: int = 0, **fields: Any) -> dict[str, Any]:
    content = fields or {"type": "text", "text": ""}
    return {"type": "content_block_start", "index": index, "content_block": content}


def delta(text: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    piece = fields if text is None else {"type": "text_delta", "text": text}
    return {"type": "content_block_delta", "index": index, "delta": piece}


def ends(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def stops(reason: str = "end_turn", usage: Any = SPENT) -> tuple[dict[str, Any], dict[str, Any]]:
    ended = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    return ended, {"type": "message_stop"}


def calls(name: str, *pieces: str, index: int = 0, call_id: str = "toolu_01T1x1fJ34qAmk2tNTrN7Up6") -> tuple[Any, ...]:
    """The events of one tool call, its arguments in pieces; the API's first piece is empty."""
    return (
        block(index, type="tool_use", id=call_id, name=name, input={}),
        *(delta(index=index, type="input_json_delta", partial_json=piece) for piece in ("", *pieces)),
        ends(index),
    )


PING = {"type": "ping"}
GREETING = (start(), block(), PING, delta("Hello"), delta(", "), delta("world"), ends(), *stops())


def event(data: Any) -> bytes:
    name = data.get("type", "") if isinstance(data, dict) else ""
    return f"event: {name}\n".encode() + b"data: " + orjson.dumps(data) + b"\n\n"


def events(*found: Any) -> bytes:
    return b"".join(map(event, found))


def error(kind: str, message: str = "no", **details: Any) -> dict[str, Any]:
    """An error as the API sends it, inside a stream or as a body."""
    inner: dict[str, Any] = {"type": kind, "message": message}
    return {"type": "error", "error": inner | ({"details": details} if details else {}), "request_id": "req_011CSHoEe"}
