"""What a request for a response says, as a body of chat completions.

Nothing is kept between calls: what refers to something kept is refused by name, and so are tools that run on OpenAI's
servers. Reasoning that another server wrote down has no meaning here and is passed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from app.api.v1.refusal import BadRequest, Unsupported
from app.api.v1.shapes import ChatBody, chat_body, count_of
from graphs.errors import Invalid

_KEPT: Final = ("previous_response_id", "conversation", "prompt", "background", "store", "context_management")
_PASSED: Final = ("temperature", "top_p", "user", "parallel_tool_calls", "service_tier", "safety_identifier")
_HARMLESS_INCLUDES: Final = frozenset({"reasoning.encrypted_content"})  # asks for nothing where there is no reasoning
_ROLES: Final = frozenset({"user", "assistant", "system", "developer"})


@dataclass(frozen=True, slots=True)
class ResponsesBody:
    """A checked request. `echo` are its fields that the answer repeats, with the defaults that held."""

    chat: ChatBody
    echo: Mapping[str, Any]


def responses_body(raw: Any, *, max_output_tokens: int) -> ResponsesBody:
    """Raises BadRequest, Unsupported, Invalid; each names the field."""
    if not isinstance(raw, dict):
        raise BadRequest("the body must be a JSON object")
    _refuse_what_is_kept(raw)
    text, reasoning = _object(raw, "text"), _object(raw, "reasoning")
    tools, metadata = raw.get("tools") or [], _object(raw, "metadata")
    said: dict[str, Any] = {
        "model": raw.get("model"),
        "messages": _messages(raw),
        "stream": raw.get("stream"),
        "max_tokens": count_of(raw, "max_output_tokens", max_output_tokens),
        "tools": _tools(tools) or None,
        "tool_choice": _tool_choice(raw.get("tool_choice")),
        "response_format": _format(text.get("format")),
        "verbosity": text.get("verbosity"),
        "reasoning_effort": reasoning.get("effort"),
        **{name: raw.get(name) for name in _PASSED},
    }
    said = {name: value for name, value in said.items() if value is not None}
    chat = chat_body(said, max_choices=1, max_output_tokens=max_output_tokens)
    return ResponsesBody(chat, _echo(raw, text, tools, metadata, reasoning))


def _refuse_what_is_kept(raw: Mapping[str, Any]) -> None:
    for name in _KEPT:
        if raw.get(name):
            raise Unsupported(f"{name} is not supported: no response is kept here, send the whole input", field=name)
    if raw.get("truncation") not in {None, "disabled"}:
        raise Unsupported("truncation is not supported: an input that is too long is refused", field="truncation")
    if raw.get("top_logprobs"):
        raise Unsupported("log-probabilities are served at /v1/chat/completions", field="top_logprobs")
    include = raw.get("include") or []
    if not isinstance(include, list) or any(name not in _HARMLESS_INCLUDES for name in map(str, include)):
        raise Unsupported("nothing of what include names is given here", field="include")


def _object(raw: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = raw.get(name)
    if value is not None and not isinstance(value, dict):
        raise Invalid(f"{name} must be an object", field=name)
    return value or {}


def _echo(
    raw: Mapping[str, Any], text: dict[str, Any], tools: Any, metadata: dict[str, Any], reasoning: dict[str, Any]
) -> dict[str, Any]:
    parallel = raw.get("parallel_tool_calls")
    return {
        "instructions": raw.get("instructions"),
        "max_output_tokens": raw.get("max_output_tokens"),
        "metadata": metadata,
        "parallel_tool_calls": True if parallel is None else parallel,
        "previous_response_id": None,
        "reasoning": {"effort": reasoning.get("effort"), "summary": None},
        "store": False,
        "background": False,
        "temperature": raw.get("temperature"),
        "text": {"format": {"type": "text"}} | text,
        "tool_choice": raw.get("tool_choice") or "auto",
        "tools": tools,
        "top_p": raw.get("top_p"),
        "truncation": "disabled",
        "user": raw.get("user"),
    }


def _messages(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    instructions, given = raw.get("instructions"), raw.get("input")
    if instructions is not None:
        if not isinstance(instructions, str):
            raise Invalid("instructions must be a text", field="instructions")
        found.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*found, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise Invalid("input must be a text or a list of items", field="input")
    for place, item in enumerate(given):
        _add(found, item, f"input.{place}")
    return found


def _add(found: list[dict[str, Any]], item: Any, where: str) -> None:
    """Add one item to the conversation."""
    if not isinstance(item, dict):
        raise Invalid("each item must be an object", field=where)
    kind = item.get("type") or "message"
    match kind:
        case "message":
            role = item.get("role")
            if not isinstance(role, str) or role not in _ROLES:
                raise Invalid(f"role must be one of {', '.join(sorted(_ROLES))}", field=f"{where}.role")
            found.append({"role": role, "content": _content(item.get("content"), f"{where}.content")})
        case "function_call":
            call_id, name, arguments = (_text(item, key, where) for key in ("call_id", "name", "arguments"))
            call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            if not found or found[-1]["role"] != "assistant":
                found.append({"role": "assistant", "content": None})
            found[-1].setdefault("tool_calls", []).append(call)
        case "function_call_output":
            output = item.get("output")
            content = output if isinstance(output, str) else _content(output, f"{where}.output")
            found.append({"role": "tool", "tool_call_id": _text(item, "call_id", where), "content": content})
        case "reasoning":
            pass
        case _:
            raise Unsupported("items are messages, function calls and their outputs", field=f"{where}.type")


def _text(item: Mapping[str, Any], name: str, where: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise Invalid(f"{name} must be a text", field=f"{where}.{name}")
    return value


def _content(content: Any, where: str) -> str | list[dict[str, Any]]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Invalid("content must be a text or a list of parts", field=where)
    parts = [_part(part, f"{where}.{place}") for place, part in enumerate(content)]
    # One text is a string: servers that read no parts read that.
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    match kind:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": _text(part, "text", where)}
        case "refusal":
            return {"type": "text", "text": _text(part, "refusal", where)}
        case "input_image" if part.get("image_url") is not None:
            image = {"url": _text(part, "image_url", where), "detail": part.get("detail") or "auto"}
            return {"type": "image_url", "image_url": image}
        case "input_image" | "input_file" | "input_audio":
            raise Unsupported("files are not kept here: send texts, and images as image_url", field=where)
    raise Invalid("each part needs a type, such as input_text", field=f"{where}.type")


def _tools(tools: Any) -> list[dict[str, Any]]:
    if not isinstance(tools, list):
        raise Invalid("tools must be a list", field="tools")
    found = []
    for place, tool in enumerate(tools):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if kind != "function":
            raise Unsupported("tools of type function are supported, no others", field=f"tools.{place}.type")
        named = {name: tool[name] for name in ("description", "parameters", "strict") if tool.get(name) is not None}
        found.append({"type": "function", "function": {"name": _text(tool, "name", f"tools.{place}"), **named}})
    return found


def _tool_choice(choice: Any) -> Any:
    if choice is None or (isinstance(choice, str) and choice in {"auto", "none", "required"}):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": _text(choice, "name", "tool_choice")}}
    raise Unsupported("tool_choice is auto, none, required, or one function", field="tool_choice")


def _format(wanted: Any) -> Any:
    if wanted is None:
        return None
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    match kind:
        case "text":
            return None
        case "json_object":
            return {"type": "json_object"}
        case "json_schema" if isinstance(wanted.get("schema"), dict):
            named = {key: wanted[key] for key in ("description", "strict") if wanted.get(key) is not None}
            schema = {"name": wanted.get("name") or "answer", "schema": wanted["schema"], **named}
            return {"type": "json_schema", "json_schema": schema}
    raise Invalid("format must be text, json_object or json_schema with a schema", field="text.format")
