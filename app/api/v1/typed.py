"""A chat completion's body in the gateway's own types, for providers that do not speak that wire.

Strict where a forwarded body is not: what cannot be carried over is refused, never left out.
"""

import json
from collections.abc import Mapping
from typing import Any

from app.api.v1.shapes import ROLES, ChatBody
from graphs.errors import Invalid
from graphs.types import Message, ModelRequest, ToolProposal, ToolSpec

_TEXT_PARTS = frozenset({"text", "input_text", "refusal"})


def model_request(body: ChatBody, model: str) -> ModelRequest:
    """Raises Invalid, naming the field."""
    raw = body.raw
    if body.choices != 1:
        raise Invalid("this model gives one choice", field="n")
    for name in ("logprobs", "top_logprobs", "audio", "functions", "function_call"):
        if raw.get(name):
            raise Invalid(f"this model does not serve {name}", field=name)
    choice = _tool_choice(raw.get("tool_choice"))
    return ModelRequest(
        messages=tuple(_message(index, message) for index, message in enumerate(raw["messages"])),
        model=model,
        task="chat",
        tools=() if choice == "none" else _tools(raw.get("tools")),
        tool_choice=choice,
        response_schema=schema_of(raw.get("response_format")),
        max_tokens=body.max_tokens,
        temperature=_number(raw, "temperature", 0, 2),
        top_p=_number(raw, "top_p", 0, 1),
        stop=stops(raw.get("stop")),
        question=body.texts[-1] if body.texts else "",
    )


def stops(value: Any) -> tuple[str, ...]:
    """Where the answer ends, the sequence itself not included. Raises Invalid."""
    found = (value,) if isinstance(value, str) else value or ()
    if not isinstance(found, list | tuple) or not all(isinstance(text, str) and text for text in found):
        raise Invalid("stop must be a text or a list of texts", field="stop")
    if len(found) > 16:
        raise Invalid("16 stop sequences are allowed", field="stop")
    return tuple(found)


def _message(index: int, message: Mapping[str, Any]) -> Message:
    content = message.get("content")
    parts = [content] if isinstance(content, str) else [part.get("text", "") for part in content or ()]
    if isinstance(content, list) and any(part["type"] not in _TEXT_PARTS for part in content):
        raise Invalid("this model reads text only", field=f"messages.{index}.content")
    calls = message.get("tool_calls") or ()
    if not isinstance(calls, list | tuple):
        raise Invalid("tool_calls must be a list", field=f"messages.{index}.tool_calls")
    answers = message.get("tool_call_id")
    return Message(
        role=ROLES[message["role"]],
        content="".join(part for part in parts if isinstance(part, str)),
        tool_calls=tuple(_call(index, call) for call in calls),
        tool_call_id=answers if isinstance(answers, str) else None,
    )


def _call(index: int, call: Any) -> ToolProposal:
    try:
        function = call["function"]
        arguments = json.loads(function["arguments"] or "{}")
        return ToolProposal(str(call["id"]), str(function["name"]), dict(arguments))
    except (TypeError, KeyError, ValueError, RecursionError) as error:
        raise Invalid("a tool call needs id, function.name and JSON arguments", field=f"messages.{index}") from error


def _tools(tools: Any) -> tuple[ToolSpec, ...]:
    if tools is None:
        return ()
    if not isinstance(tools, list):
        raise Invalid("tools must be a list", field="tools")
    return tuple(_tool(index, tool) for index, tool in enumerate(tools))


def _tool(index: int, tool: Any) -> ToolSpec:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str) or not name:
        raise Invalid("each tool needs type function and function.name", field=f"tools.{index}")
    parameters = function.get("parameters")
    if not isinstance(parameters, dict | None):
        raise Invalid("parameters must be a JSON schema", field=f"tools.{index}.function.parameters")
    described = function.get("description")
    return ToolSpec(
        name, described if isinstance(described, str) else "", parameters or {"type": "object", "properties": {}}
    )


def _tool_choice(choice: Any) -> str:
    """auto, none, required, or the name of the one tool to call."""
    if choice is None:
        return "auto"
    if isinstance(choice, str) and choice in {"auto", "none", "required"}:
        return choice
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise Invalid("tool_choice must be auto, none, required or name a function", field="tool_choice")
    return name


def schema_of(wanted: Any) -> Mapping[str, Any] | None:
    """The JSON schema of a `response_format`; None for plain text. Raises Invalid."""
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = wanted.get("json_schema") if isinstance(wanted, dict) else None
    schema = described.get("schema") if isinstance(described, dict) else None
    if kind != "json_schema" or not isinstance(schema, dict):
        raise Invalid("response_format must be text, json_object or json_schema with a schema", field="response_format")
    return schema


def _number(raw: Mapping[str, Any], name: str, least: float, most: float) -> float | None:
    value = raw.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise Invalid(f"{name} must be a number from {least} to {most}", field=name)
    return float(value)
