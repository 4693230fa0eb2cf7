"""A request as Anthropic's Messages API takes it."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from app.services.gateway.wire import dump, is_closed
from graphs.types import Message, ModelInfo, ModelRequest

ANSWER_TOOL: Final = "give_answer"
"""Through which an answer comes whose schema the API itself cannot enforce."""

_CACHED: Final = {"type": "ephemeral"}
_NOT_IN_IDS: Final = re.compile(r"[^A-Za-z0-9_-]")
# Bounds that structured outputs refuse (docs "Structured outputs", JSON schema limitations).
_UNENFORCED: Final = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength", "pattern"}
    | {"minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "patternProperties"}
    | {"oneOf", "not", "if", "prefixItems"}
)


def body(request: ModelRequest, info: ModelInfo, served_name: str, *, cache_prompts: bool) -> bytes:
    """The request's JSON.

    With `cache_prompts` the stable beginning is marked for the vendor's prompt cache: tools and system prompt, and with
    tools the whole conversation, which an agent's next step repeats. Prompts under the vendor's minimum are not cached,
    at no cost.
    """
    tools = _tools(request) if info.native_tools else []
    schema = request.response_schema
    by_tool = answers_by_tool(request)
    if schema is not None and by_tool:
        given = dict(schema) or {"type": "object"}
        tools.append({"name": ANSWER_TOOL, "description": "Give the answer.", "input_schema": given})
    told = [message.content for message in request.messages if message.role == "system"]
    system = [_text(text) for text in told if text.strip()]
    messages = _messages(request.messages)
    if cache_prompts:
        _mark(system or tools)
        _mark(messages[-1]["content"] if request.tools and messages else [])
    return dump(
        {
            "model": served_name,
            "max_tokens": min(request.max_tokens or info.max_output_tokens, info.max_output_tokens),
            "stream": True,
            "system": system or None,
            "messages": messages,
            "tools": tools or None,
            "tool_choice": _choice("required" if by_tool else request.tool_choice) if tools else None,
            "stop_sequences": [text for text in request.stop if text.strip()] or None,  # it refuses blank ones
            "output_config": {"format": {"type": "json_schema", "schema": schema}} if schema and not by_tool else None,
            # Its range ends at 1, and current models refuse the two together.
            "temperature": None if request.temperature is None else min(request.temperature, 1.0),
            "top_p": request.top_p if request.temperature is None else None,
        }
    )


def _mark(blocks: list[dict[str, Any]]) -> None:
    """Let the vendor keep what it has read up to the last of these blocks."""
    if blocks:
        blocks[-1] = {**blocks[-1], "cache_control": _CACHED}


def answers_by_tool(request: ModelRequest) -> bool:
    """Whether the answer comes as the input of ANSWER_TOOL: the API holds answers to closed objects only, and knows no
    bounds on values."""
    schema = request.response_schema
    return schema is not None and not (bool(schema) and is_closed(schema) and not _bounded(schema))


def _bounded(schema: Any) -> bool:
    if isinstance(schema, list | tuple):
        return any(map(_bounded, schema))
    if not isinstance(schema, Mapping):
        return False
    named = [each for group in ("properties", "$defs") for each in schema.get(group, {}).values()]
    rest = {key: value for key, value in schema.items() if key not in {"properties", "$defs", "enum", "const"}}
    return bool(_UNENFORCED & rest.keys()) or any(map(_bounded, [*named, *rest.values()]))


def _tools(request: ModelRequest) -> list[dict[str, Any]]:
    return [
        {"name": spec.name, "description": spec.description, "input_schema": dict(spec.parameters)}
        for spec in request.tools
    ]


def _choice(choice: str) -> dict[str, str] | None:
    if choice == "auto":
        return None
    named = {"none": {"type": "none"}, "required": {"type": "any"}}
    return named.get(choice) or {"type": "tool", "name": choice}


def _messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """The turns in between, neighbours of one side joined: the results of parallel calls must come in one turn."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system" or not (blocks := _blocks(message)):
            continue
        role = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        else:
            turns.append({"role": role, "content": blocks})
    return turns


def _blocks(message: Message) -> list[dict[str, Any]]:
    """The message's contents; the API refuses empty texts, and a turn of nothing else is none."""
    if message.role == "tool":
        call_id = _id(message.tool_call_id or "")
        return [{"type": "tool_result", "tool_use_id": call_id, "content": message.content}]
    calls = [
        {"type": "tool_use", "id": _id(call.call_id), "name": call.name, "input": dict(call.arguments)}
        for call in message.tool_calls
    ]
    return [_text(message.content), *calls] if message.content.strip() else calls


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _id(call_id: str) -> str:
    """An id of whichever vendor as this one takes it."""
    return _NOT_IN_IDS.sub("_", call_id) or "call"
