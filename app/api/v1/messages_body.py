"""What a request for a message says, as a body of chat completions.

Marks for a prompt cache and the thinking of earlier turns have no counterpart and are passed over; thinking that is
asked for, tools that run on Anthropic's servers and files are refused by name.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import orjson

from app.api.v1.refusal import BadRequest, Unsupported
from app.api.v1.shapes import ChatBody, chat_body, count_of
from app.api.v1.typed import stops
from graphs.errors import Invalid

_UNSERVED: Final = ("container", "mcp_servers", "context_management", "top_k")
_PASSED: Final = ("temperature", "top_p")
_THOUGHTS: Final = frozenset({"thinking", "redacted_thinking"})


def messages_body(raw: Any, *, max_output_tokens: int) -> ChatBody:
    """Raises BadRequest, Unsupported, Invalid; each names the field."""
    if not isinstance(raw, dict):
        raise BadRequest("the body must be a JSON object")
    for name in _UNSERVED:
        if raw.get(name):
            raise Unsupported(f"{name} is not supported", field=name)
    if raw.get("model") is None:
        raise Invalid("model must be a name", field="model")
    most = count_of(raw, "max_tokens", max_output_tokens)
    if most is None:
        raise Invalid("max_tokens is needed on this wire", field="max_tokens")
    _refuse_thinking(raw.get("thinking"))
    choice = raw.get("tool_choice")
    said: dict[str, Any] = {
        "model": raw["model"],
        "messages": [*_system(raw.get("system")), *_turns(raw.get("messages"))],
        "stream": raw.get("stream"),
        "max_tokens": most,
        "stop": list(stops(raw.get("stop_sequences"))) or None,
        "tools": _tools(raw.get("tools")) or None,
        "tool_choice": _tool_choice(choice),
        "parallel_tool_calls": False if isinstance(choice, dict) and choice.get("disable_parallel_tool_use") else None,
        "response_format": _format(raw),
        "user": _user(raw.get("metadata")),
        **{name: raw.get(name) for name in _PASSED},
    }
    said = {name: value for name, value in said.items() if value is not None}
    return chat_body(said, max_choices=1, max_output_tokens=max_output_tokens)


def _refuse_thinking(thinking: Any) -> None:
    if thinking is not None and (not isinstance(thinking, dict) or thinking.get("type") != "disabled"):
        raise Unsupported("thinking is not supported: leave it out, or disabled", field="thinking")


def _user(metadata: Any) -> Any:
    return metadata.get("user_id") if isinstance(metadata, dict) else None


def _system(system: Any) -> list[dict[str, Any]]:
    if system is None or system == "":
        return []
    if isinstance(system, str):
        return [{"role": "system", "content": system}]
    if not isinstance(system, list):
        raise Invalid("system must be a text or a list of text blocks", field="system")
    texts = [_text_of(block, f"system.{place}") for place, block in enumerate(system)]
    return [{"role": "system", "content": "\n\n".join(texts)}] if texts else []


def _turns(messages: Any) -> Iterator[dict[str, Any]]:
    if not isinstance(messages, list) or not messages:
        raise Invalid("messages must be a list of at least one message", field="messages")
    for place, message in enumerate(messages):
        where = f"messages.{place}"
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(message, dict) or role not in ("user", "assistant", "system"):
            raise Invalid("role must be user or assistant", field=f"{where}.role")
        content = message.get("content")
        if isinstance(content, str):
            yield {"role": role, "content": content}
        elif not isinstance(content, list):
            raise Invalid("content must be a text or a list of blocks", field=f"{where}.content")
        elif role == "assistant":
            yield _assistant(content, f"{where}.content")
        else:
            yield from _user_turn(role, content, f"{where}.content")


def _assistant(blocks: list[Any], where: str) -> dict[str, Any]:
    texts, calls = [], []
    for place, block in enumerate(blocks):
        kind, spot = _kind(block, f"{where}.{place}"), f"{where}.{place}"
        if kind == "tool_use":
            given = block.get("input")
            if not isinstance(given, dict):
                raise Invalid("input must be an object", field=f"{spot}.input")
            function = {"name": _text(block, "name", spot), "arguments": orjson.dumps(given).decode()}
            calls.append({"id": _text(block, "id", spot), "type": "function", "function": function})
        elif kind not in _THOUGHTS:
            texts.append(_text_of(block, spot))
    turn: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    if calls:
        turn["tool_calls"] = calls
    elif not texts:
        turn["content"] = ""
    return turn


def _user_turn(role: str, blocks: list[Any], where: str) -> Iterator[dict[str, Any]]:
    """Results of tools are turns of their own on the other wire, and come before what the user says with them."""
    parts: list[dict[str, Any]] = []
    for place, block in enumerate(blocks):
        spot = f"{where}.{place}"
        if _kind(block, spot) == "tool_result":
            yield {
                "role": "tool",
                "tool_call_id": _text(block, "tool_use_id", spot),
                "content": _result(block, spot),
            }
        else:
            parts.append(_part(block, spot))
    if len(parts) == 1 and parts[0]["type"] == "text":
        yield {"role": role, "content": parts[0]["text"]}  # servers that read no parts read a string
    elif parts:
        yield {"role": role, "content": parts}


def _result(block: Mapping[str, Any], where: str) -> str:
    content = block.get("content")
    if content is None or isinstance(content, str):
        text = content or ""
    elif isinstance(content, list):
        text = "\n".join(_text_of(part, f"{where}.content.{place}") for place, part in enumerate(content))
    else:
        raise Invalid("content must be a text or a list of blocks", field=f"{where}.content")
    return f"Error: {text}" if block.get("is_error") is True else text


def _part(block: Mapping[str, Any], where: str) -> dict[str, Any]:
    if block.get("type") != "image":
        return {"type": "text", "text": _text_of(block, where)}
    source = block.get("source")
    kind = source.get("type") if isinstance(source, dict) else None
    if isinstance(source, dict) and kind == "url":
        return {"type": "image_url", "image_url": {"url": _text(source, "url", f"{where}.source")}}
    if isinstance(source, dict) and kind == "base64":
        media, data = _text(source, "media_type", f"{where}.source"), _text(source, "data", f"{where}.source")
        return {"type": "image_url", "image_url": {"url": f"data:{media};base64,{data}"}}
    raise Unsupported("images come as base64 or by url", field=f"{where}.source")


def _text_of(block: Any, where: str) -> str:
    kind = _kind(block, where)
    source = block.get("source")
    if kind == "document" and isinstance(source, dict) and source.get("type") == "text":
        return _text(source, "data", f"{where}.source")
    if kind != "text":
        raise Unsupported("blocks of this type are not supported here", field=f"{where}.type")
    return _text(block, "text", where)


def _kind(block: Any, where: str) -> str:
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str):
        raise Invalid("each block needs a type", field=f"{where}.type")
    return kind


def _text(block: Mapping[str, Any], name: str, where: str) -> str:
    value = block.get(name)
    if not isinstance(value, str):
        raise Invalid(f"{name} must be a text", field=f"{where}.{name}")
    return value


def _tools(tools: Any) -> list[dict[str, Any]]:
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise Invalid("tools must be a list", field="tools")
    found = []
    for place, tool in enumerate(tools):
        where = f"tools.{place}"
        if not isinstance(tool, dict):
            raise Invalid("each tool must be an object", field=where)
        if tool.get("type") not in (None, "custom"):
            raise Unsupported("tools that run on Anthropic's servers are not supported", field=f"{where}.type")
        schema = tool.get("input_schema")
        if not isinstance(schema, dict):
            raise Invalid("input_schema must be a JSON schema", field=f"{where}.input_schema")
        function = {"name": _text(tool, "name", where), "parameters": schema}
        if tool.get("description") is not None:
            function["description"] = _text(tool, "description", where)
        found.append({"type": "function", "function": function})
    return found


def _tool_choice(choice: Any) -> Any:
    if choice is None:
        return None
    kind = choice.get("type") if isinstance(choice, dict) else None
    match kind:
        case "auto" | "none":
            return kind
        case "any":
            return "required"
        case "tool":
            return {"type": "function", "function": {"name": _text(choice, "name", "tool_choice")}}
    raise Invalid("tool_choice must be of type auto, any, tool or none", field="tool_choice")


def _format(raw: Mapping[str, Any]) -> Any:
    """A JSON schema for the answer: `output_config.format`, or `output_format` as it was called before."""
    config = raw.get("output_config")
    wanted = config.get("format") if isinstance(config, dict) else raw.get("output_format")
    if wanted is None:
        return None
    if (
        not isinstance(wanted, dict)
        or wanted.get("type") != "json_schema"
        or not isinstance(wanted.get("schema"), dict)
    ):
        raise Invalid("format must be json_schema with a schema", field="output_config.format")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted["schema"], "strict": True}}
