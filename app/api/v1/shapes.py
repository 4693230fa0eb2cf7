"""OpenAI's chat completions as JSON: what a body may say, what an answer and its chunks look like, and errors.

Only what decides the gateway's own work is checked here; every other field goes to the provider as the client sent it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphs.errors import Invalid, PilothouseError
from graphs.types import Completion, Message, ModelRequest, Role, ToolProposal, ToolSpec, Usage

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


class BadRequest(Invalid):
    """A body that is not a request at all; HTTP 400."""

    code = "malformed_request"


@dataclass(frozen=True, slots=True)
class ChatBody:
    """A checked body. `raw` is all of it; the rest is what the gateway reads itself."""

    raw: dict[str, Any]
    model: str | None
    stream: bool
    choices: int
    max_tokens: int | None
    texts: tuple[str, ...]

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
    choices = _count(raw, "n", max_choices) or 1
    if raw.get("best_of") is not None:
        raise Invalid("best_of is not served", field="best_of")
    limits = [_count(raw, name, max_output_tokens) for name in ("max_completion_tokens", "max_tokens")]
    asked = [limit for limit in limits if limit is not None]
    texts = tuple(text for index, message in enumerate(messages) for text in _texts(index, message))
    return ChatBody(raw, model or None, bool(stream), choices, min(asked) if asked else None, texts)


def _count(raw: Mapping[str, Any], name: str, most: int) -> int | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise Invalid(f"{name} must be a whole number from 1 to {most}", field=name)
    return value


def _texts(index: int, message: Any) -> list[str]:
    """The texts of one message, whose content is a string, a list of parts, or absent beside tool calls."""
    where = f"messages.{index}"
    if not isinstance(message, dict) or message.get("role") not in ROLES:
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


def model_request(body: ChatBody, model: str) -> ModelRequest:
    """The same request in the gateway's own types, for providers that do not speak this wire. Raises Invalid."""
    raw = body.raw
    if body.choices != 1:
        raise Invalid("this model gives one choice", field="n")
    return ModelRequest(
        messages=tuple(_message(index, message) for index, message in enumerate(raw["messages"])),
        model=model,
        task="chat",
        tools=_tools(raw.get("tools")),
        response_schema=_schema(raw.get("response_format")),
        max_tokens=body.max_tokens,
        temperature=_number(raw, "temperature", 0, 2),
        top_p=_number(raw, "top_p", 0, 1),
        question=body.texts[-1] if body.texts else "",
    )


def _message(index: int, message: Mapping[str, Any]) -> Message:
    content = message.get("content")
    parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content or ()]
    if isinstance(content, list) and any(part["type"] not in {"text", "input_text", "refusal"} for part in content):
        raise Invalid("this model reads text only", field=f"messages.{index}.content")
    calls = tuple(_call(index, call) for call in message.get("tool_calls") or ())
    answers = message.get("tool_call_id")
    return Message(
        role=ROLES[message["role"]],
        content="".join(part for part in parts if isinstance(part, str)),
        tool_calls=calls,
        tool_call_id=answers if isinstance(answers, str) else None,
    )


def _call(index: int, call: Any) -> ToolProposal:
    try:
        function = call["function"]
        arguments = json.loads(function["arguments"] or "{}")
        return ToolProposal(str(call["id"]), str(function["name"]), dict(arguments))
    except (TypeError, KeyError, ValueError) as error:
        raise Invalid("a tool call needs id, function.name and JSON arguments", field=f"messages.{index}") from error


def _tools(tools: Any) -> tuple[ToolSpec, ...]:
    if tools is None:
        return ()
    try:
        return tuple(
            ToolSpec(
                tool["function"]["name"],
                tool["function"].get("description") or "",
                tool["function"].get("parameters") or {"type": "object", "properties": {}},
            )
            for tool in tools
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise Invalid("each tool needs type function and function.name", field="tools") from error


def _schema(wanted: Any) -> Mapping[str, Any] | None:
    if wanted is None or not isinstance(wanted, dict) or wanted.get("type") == "text":
        return None
    if wanted.get("type") == "json_object":
        return {"type": "object"}
    described = wanted.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict):
        raise Invalid("response_format needs json_schema.schema", field="response_format")
    return schema


def _number(raw: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Invalid(f"{name} must be a number from {least} to {most}", field=name)
    return float(value)


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


_TYPES: Final = {
    "invalid": "invalid_request_error",
    "denied": "permission_error",
    "missing": "invalid_request_error",
    "conflict": "invalid_request_error",
    "exhausted": "rate_limit_error",
    "upstream": "upstream_error",
    "internal": "server_error",
}


def error_json(error: PilothouseError) -> dict[str, Any]:
    """OpenAI's error body. An internal error keeps its message to itself."""
    told = "The server failed; the log has the cause." if error.kind == "internal" else error.message
    kind = "authentication_error" if error.code == "unauthenticated" else _TYPES[error.kind]
    return {"error": {"message": told, "type": kind, "param": error.field, "code": error.code}}
