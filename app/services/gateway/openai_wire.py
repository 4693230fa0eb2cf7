"""The shapes of OpenAI's chat completions: a request's body, and a completion put together from chunks."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from app.services.gateway.tokens import estimated_usage
from app.services.gateway.upstream import failure
from app.services.gateway.wire import PartialCall, count_of, dump, is_closed, parse_event
from graphs.errors import UpstreamError
from graphs.types import Completion, FinishReason, Message, ModelInfo, ModelRequest, ToolSpec, Usage

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

DONE: Final = b"[DONE]"
FINISH: Final[Mapping[str, FinishReason]] = {
    "stop": "stop",
    "eos": "stop",
    "end_turn": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


@dataclass(frozen=True, slots=True)
class Sampling:
    """What a model's card advises where a request does not say; None leaves it to the server."""

    temperature: float | None = None
    top_p: float | None = None


def body(
    request: ModelRequest,
    info: ModelInfo,
    sampling: Sampling,
    max_tokens_field: MaxTokensField = "max_tokens",
    served_name: str | None = None,
) -> bytes:
    """The request's JSON. The answer is always bounded: a small model can go on for ever."""
    limit = min(request.max_tokens or info.max_output_tokens, info.max_output_tokens)
    temperature = sampling.temperature if request.temperature is None else request.temperature
    top_p = sampling.top_p if request.top_p is None else request.top_p
    fields: dict[str, Any] = {
        "model": served_name or info.name,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        max_tokens_field: limit,
        "temperature": temperature,
        "top_p": top_p,
        "stop": list(request.stop) or None,
        "tools": [_tool(spec) for spec in request.tools] or None if info.native_tools else None,
        "tool_choice": _choice(request.tool_choice) if request.tools and info.native_tools else None,
        "response_format": _format(request.response_schema) if request.response_schema is not None else None,
    }
    return dump(fields)


def _message(message: Message) -> dict[str, Any]:
    fields: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        fields["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments))},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        fields["tool_call_id"] = message.tool_call_id
    return fields


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function}


def _choice(choice: str) -> Any:
    if choice == "auto":
        return None  # what every server does unasked, and some know nothing else
    return choice if choice in {"none", "required"} else {"type": "function", "function": {"name": choice}}


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    # OpenAI enforces a schema in strict mode only, and refuses strict mode for schemas with optional properties.
    named = {"name": "answer", "schema": dict(schema), "strict": is_closed(schema)}
    return {"type": "json_schema", "json_schema": named}


class Assembly:
    """Implements `app.services.gateway.reply.Assembly`."""

    def __init__(self, info: ModelInfo, secret: str = "") -> None:
        self._info, self._secret = info, secret
        self._texts: list[str] = []
        self._calls: list[PartialCall] = []
        self._by_index: dict[int, PartialCall] = {}
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._served = ""
        self.pieces = 0
        self.over = False

    @property
    def finished(self) -> bool:
        return self._finish is not None

    def hear(self, data: bytes) -> str:
        if data.strip() == DONE:
            self.over = True
            return ""
        return self.add(parse_event(self._info.name, data))

    def add(self, chunk: Any) -> str:
        """The text that `chunk` adds, often empty. Raises the upstream's own error, or UpstreamError for garbage."""
        if isinstance(chunk, list):  # Gemini's OpenAI endpoint wraps its errors in a list
            return "".join(self.add(item) for item in chunk)
        if not isinstance(chunk, dict):
            raise UpstreamError(f"{self._info.name} sent an event that is not an object")
        if (error := chunk.get("error")) is not None:
            raise failure(self._info.name, 200, error, secret=self._secret)
        if isinstance(served := chunk.get("model"), str):
            self._served = served
        if (usage := read_usage(chunk.get("usage"))) is not None:
            self._usage = usage
        choices = chunk.get("choices")
        text = ""
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index") in (0, None):
                text += self._choose(choice)
        return text

    def _choose(self, choice: Mapping[str, Any]) -> str:
        if isinstance(finish := choice.get("finish_reason"), str):
            self._finish = finish
            self.pieces += 1
        # A server that does not stream answers the same call with a whole `message`.
        piece = choice.get("delta") or choice.get("message")
        if not isinstance(piece, dict):
            return ""
        content, refusal, calls = piece.get("content"), piece.get("refusal"), piece.get("tool_calls")
        text = content if isinstance(content, str) else ""
        if isinstance(refusal, str):
            text += refusal
        if calls:
            self._add_calls(calls)
        if text or calls or piece.get("reasoning_content") or piece.get("reasoning"):
            self.pieces += 1
        if text:
            self._texts.append(text)
        return text

    def _add_calls(self, pieces: Any) -> None:
        for position, piece in enumerate(pieces if isinstance(pieces, list) else ()):
            if not isinstance(piece, dict):
                continue
            index, call_id = piece.get("index"), piece.get("id")
            index = index if isinstance(index, int) else position
            call = self._by_index.get(index)
            # Some servers number every call 0: another id is another call.
            if call is None or (isinstance(call_id, str) and call_id and call.call_id and call_id != call.call_id):
                call = self._by_index[index] = PartialCall()
                self._calls.append(call)
            function = piece.get("function")
            function = function if isinstance(function, dict) else {}
            if isinstance(call_id, str):
                call.call_id = call.call_id or call_id
            if isinstance(name := function.get("name"), str):
                call.name = call.name or name
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                call.arguments.append(arguments)
            elif isinstance(arguments, dict):
                call.arguments.append(json.dumps(arguments))

    def told_usage(self) -> Usage | None:
        """What the server has counted so far, where it said so."""
        return self._usage

    def completion(self, request: ModelRequest, count: Callable[[str], int]) -> Completion:
        """The whole. Usage that the server did not give, or gave as garbage, is counted with `count` and marked.

        Raises UpstreamError for a tool call without a name or whose arguments are not a JSON object.
        """
        text = "".join(self._texts)
        calls = tuple(call.proposal(self._info.name, number) for number, call in enumerate(self._calls))
        finish = FINISH.get(self._finish or "", "unknown")
        usage = self.told_usage()
        if usage is None or (usage.output_tokens == 0 and (text or calls)):
            written = text + "".join(call.text for call in self._calls)
            usage = estimated_usage(request.messages, written, count)
        return Completion(
            text=text,
            model=self._info.name,
            model_version=self._info.version or self._served,
            provider=self._info.provider,
            usage=usage,
            finish_reason="tool_calls" if calls and finish in {"stop", "unknown"} else finish,
            tool_calls=calls,
        )


def read_usage(usage: Any) -> Usage | None:
    """Tokens as the server counted them; None if it did not, or if a count cannot be one."""
    if not isinstance(usage, dict):
        return None
    read = [count_of(usage.get("prompt_tokens")), count_of(usage.get("completion_tokens"))]
    if read[0] is None or read[1] is None:
        return None
    details = usage.get("prompt_tokens_details")
    cached = count_of(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(read[0], read[1], cached_input_tokens=min(cached or 0, read[0]))
