"""OpenAI's chat completions as JSON: what a body may say, what an answer and its chunks look like.

Only what decides the gateway's own work is checked here; every other field goes to the provider as the client sent it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.api.v1.refusal import BadRequest
from graphs.errors import Invalid
from graphs.types import Completion, Role, ToolProposal, Usage

ROLES: Final[Mapping[str, Role]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
MAX_MESSAGES: Final = 2_048
_FINISH: Final = {"no_answer": "stop", "unknown": "stop"}


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A checked body. `raw` is all of it; the rest is what the gateway reads itself. `parts` counts images and the like
    in its messages."""

    raw: dict[str, Any]
    model: str | None
    stream: bool
    choices: int
    max_tokens: int | None
    texts: tuple[str, ...]
    parts: int = 0

    @property
    def with_usage(self) -> bool:
        """Whether the client asked for the usage in the last chunk of a stream."""
        options = self.raw.get("stream_options")
        return isinstance(options, dict) and options.get("include_usage") is True


def chat_body(raw: Any, *, max_choices: int, max_output_tokens: int) -> ChatBody:
    """Raises Invalid, naming the field."""
    if not isinstance(raw, dict):
        raise BadRequest("the body must be a JSON object")
    messages = raw.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Invalid("messages must be a list of at least one message", field="messages")
    if len(messages) > MAX_MESSAGES:
        raise Invalid(f"{MAX_MESSAGES} messages are allowed", field="messages")
    model = raw.get("model")
    if model is not None and (not isinstance(model, str) or not model or len(model) > 256):
        raise Invalid("model must be a name", field="model")
    stream = raw.get("stream", False)
    if not isinstance(stream, bool) and stream is not None:
        raise Invalid("stream must be true or false", field="stream")
    choices = count_of(raw, "n", max_choices) or 1
    if raw.get("best_of") is not None:
        raise Invalid("best_of is not served", field="best_of")
    limits = [count_of(raw, name, max_output_tokens) for name in ("max_completion_tokens", "max_tokens")]
    asked = [limit for limit in limits if limit is not None]
    texts = tuple(text for index, message in enumerate(messages) for text in texts_of(index, message))
    parts = sum(map(_other_parts, messages))
    return ChatBody(raw, model or None, bool(stream), choices, min(asked) if asked else None, texts, parts)


def _other_parts(message: dict[str, Any]) -> int:
    content = message.get("content")
    return sum("text" not in part for part in content) if isinstance(content, list) else 0


def count_of(raw: Mapping[str, Any], name: str, most: int) -> int | None:
    """A whole number from 1 to `most`, None where it is absent. Raises Invalid."""
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Invalid(f"{name} must be a whole number from 1 to {most}", field=name)
    return value


def texts_of(index: int, message: Any) -> list[str]:
    """The texts of one message, whose content is a string, a list of parts, or absent beside tool calls."""
    where = f"messages.{index}"
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(message, dict) or not isinstance(role, str) or role not in ROLES:
        raise Invalid(f"each message needs a role, one of {', '.join(ROLES)}", field=f"{where}.role")
    content = message.get("content")
    found: list[str] = []
    if isinstance(content, str):
        found.append(content)
    elif isinstance(content, list):
        for place, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise Invalid("each part of a content needs a type", field=f"{where}.content.{place}")
            if isinstance(text := part.get("text"), str):
                found.append(text)
    elif content is not None:
        raise Invalid("content must be a text or a list of parts", field=f"{where}.content")
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        found += [json.dumps(call) for call in calls]
    return found


def usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
    }


def finish_json(completion: Completion) -> str:
    return _FINISH.get(completion.finish_reason, completion.finish_reason)


def answer_json(completion: Completion, text: str, answer_id: str, created: int) -> dict[str, Any]:
    """A whole answer. `text` is the completion's as the output guard let it out."""
    message: dict[str, Any] = {"role": "assistant", "content": text or None, "refusal": None}
    if completion.tool_calls:
        message["tool_calls"] = calls_json(completion.tool_calls)
    elif not text:
        message["content"] = ""
    return {
        "id": answer_id,
        "object": "chat.completion",
        "created": created,
        "model": completion.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_json(completion)}],
        "usage": usage_json(completion.usage),
    }


def chunk_json(
    answer_id: str, created: int, model: str, delta: Mapping[str, Any], finish: str | None = None
) -> dict[str, Any]:
    return {
        "id": answer_id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [{"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish}],
    }


def calls_json(calls: Sequence[ToolProposal], *, indexed: bool = False) -> list[dict[str, Any]]:
    """`indexed` for the chunks of a stream."""
    return [
        ({"index": index} if indexed else {})
        | {
            "id": call.call_id,
            "type": "function",
            "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
        }
        for index, call in enumerate(calls)
    ]
