"""The answer on the wire of Anthropic's Messages: its object, and the events of its stream."""

from typing import Any, Final

import orjson

from app.api.v1.refusal import Refusal
from app.api.v1.telling import Part, Teller
from app.ids import new_id
from graphs.errors import UpstreamError
from graphs.types import Usage

_STOP_REASONS: Final = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class MessageTeller(Teller):
    """One message. A refusal is told as text: this wire has no part for it."""

    def __init__(self, model: str, request_id: str) -> None:
        super().__init__()
        self._id, self._model, self._request_id = f"msg_{new_id()}", model, request_id
        self._usage = Usage()

    def answer(self) -> dict[str, Any]:
        content = [_block(part) for part in self.parts]
        return self._message(content) | {"stop_reason": self._stop_reason, "usage": _usage(self._usage), **self.extra}

    @property
    def _stop_reason(self) -> str:
        return _STOP_REASONS.get(self.finish, "end_turn")

    def _message(self, content: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _usage(Usage()),
        }

    def _begin(self) -> None:
        # What the prompt has cost is known at the end; the counts of message_delta take the place of these.
        self._tell("message_start", message=self._message([]))

    def _opened(self, part: Part) -> None:
        block: dict[str, Any] = {"type": "text", "text": ""}
        if part.kind == "call":
            block = {"type": "tool_use", "id": part.call_id, "name": part.name, "input": {}}
        self._tell("content_block_start", index=part.place, content_block=block)

    def _said(self, part: Part, piece: str) -> None:
        delta = {"type": "text_delta", "text": piece}
        if part.kind == "call":
            delta = {"type": "input_json_delta", "partial_json": piece}
        self._tell("content_block_delta", index=part.place, delta=delta)

    def _closed(self, part: Part) -> None:
        if part.kind == "call":
            _input(part)
        self._tell("content_block_stop", index=part.place)

    def _end(self, usage: Usage) -> None:
        self._usage = usage
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        self._tell("message_delta", delta=delta, usage=_usage(usage), **self.extra)
        self._tell("message_stop")

    def _break(self, told: Refusal) -> None:
        body = told.anthropic(self._request_id)
        self._tell(body.pop("type"), **body)


def _block(part: Part) -> dict[str, Any]:
    if part.kind == "call":
        return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": _input(part)}
    return {"type": "text", "text": part.text}


def _input(part: Part) -> dict[str, Any]:
    """The call's arguments. Raises UpstreamError: clients of this wire parse them, and would fail in their own way."""
    try:
        arguments = orjson.loads(part.text or "{}")
    except orjson.JSONDecodeError as error:
        raise UpstreamError("the model asked for a tool with arguments that are not JSON") from error
    if not isinstance(arguments, dict):
        raise UpstreamError("the model asked for a tool with arguments that are no object")
    return arguments


def _usage(usage: Usage) -> dict[str, Any]:
    """Tokens read from and written to a prompt cache stand beside the others, not among them."""
    cached, written = usage.cached_input_tokens, usage.cache_write_tokens
    return {
        "input_tokens": max(0, usage.input_tokens - cached - written),
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": written,
        "output_tokens": usage.output_tokens,
    }
