"""Our messages and token counts as LangChain's, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from app.services.gateway.wire import count_of, readable
from graphs.errors import Invalid
from graphs.types import Message, Role, ToolProposal, ToolSpec, Usage

_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
}


def to_langchain(message: Message) -> BaseMessage:
    text = readable(message.content)
    match message.role:
        case "system":
            return SystemMessage(text)
        case "user":
            return HumanMessage(text)
        case "tool":
            return ToolMessage(text, tool_call_id=message.tool_call_id or "")
    calls = [{"name": c.name, "args": readable(dict(c.arguments)), "id": c.call_id} for c in message.tool_calls]
    return AIMessage(text, tool_calls=calls)


def from_langchain(message: BaseMessage) -> Message:
    """Raises Invalid for a role that we do not have, and for contents that are not text."""
    kind = message.role if isinstance(message, ChatMessage) else message.type
    if kind not in _ROLES:
        raise Invalid(f"there is no role {kind!r}", field="messages")
    blocks: Sequence[Any] = message.content if isinstance(message.content, list) else ()
    if any(
        isinstance(block, dict) and block.get("type") in {"image", "image_url", "audio", "file"} for block in blocks
    ):
        raise Invalid("messages carry text only", field="messages")
    calls = message.tool_calls if isinstance(message, AIMessage) else ()
    return Message(
        role=_ROLES[kind],
        content=str(message.text),
        tool_calls=tuple(ToolProposal(call["id"] or "", call["name"], call["args"]) for call in calls),
        tool_call_id=message.tool_call_id if isinstance(message, ToolMessage) else None,
    )


def tool_to_langchain(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function}


def usage_to_langchain(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        input_token_details=InputTokenDetails(
            cache_read=usage.cached_input_tokens, cache_creation=usage.cache_write_tokens
        ),
    )


def usage_from_langchain(told: Mapping[str, Any] | None) -> Usage | None:
    """None where the vendor did not say, or said what cannot be a count."""
    if told is None:
        return None
    read, written = count_of(told.get("input_tokens")), count_of(told.get("output_tokens"))
    if read is None or written is None:
        return None
    details = told.get("input_token_details") or {}
    cached = min(count_of(details.get("cache_read")) or 0, read)
    stored = min(count_of(details.get("cache_creation")) or 0, read - cached)
    return Usage(read, written, cached_input_tokens=cached, cache_write_tokens=stored)
