"""The shapes of OpenAI's chat completions: a request's body, and a completion put together from chunks."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

from app.services.gateway.tokens import MESSAGE_TOKENS, texts_of
from app.services.gateway.upstream import failure
from graphs.errors import UpstreamError
from graphs.types import Completion, FinishReason, Message, ModelInfo, ModelRequest, ToolProposal, ToolSpec, Usage

MaxTokensField = Literal["max_tokens", "max_completion_tokens"]

MAX_COUNT: Final = 1 << 31  # a count of tokens above it is garbage
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
        "tools": [_tool(spec) for spec in request.tools] if request.tools and info.native_tools else None,
        "response_format": _format(request.response_schema) if request.response_schema is not None else None,
    }
    said = {name: value for name, value in fields.items() if value is not None}
    try:
        return orjson.dumps(said)
    except TypeError:  # a lone surrogate: orjson refuses to write one, and no model can read one
        return orjson.dumps(_whole(said))


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


def _format(schema: Mapping[str, Any]) -> dict[str, Any]:
    # OpenAI enforces a schema in strict mode only, and refuses strict mode for schemas with optional properties.
    named = {"name": "answer", "schema": dict(schema), "strict": _is_closed(schema)}
    return {"type": "json_schema", "json_schema": named}


def _is_closed(schema: Any) -> bool:
    """Whether every object in the schema names and requires all of its properties."""
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        if schema.get("type") == "object" or properties is not None:
            names = set(properties or {})
            if schema.get("additionalProperties") is not False or set(schema.get("required", ())) != names:
                return False
        return all(_is_closed(value) for value in schema.values())
    return all(_is_closed(item) for item in schema) if isinstance(schema, list | tuple) else True


def _whole(value: Any) -> Any:
    """The same JSON value with U+FFFD for lone surrogates; halves of one character are joined."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, Mapping):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list | tuple) else value


def parse(data: str) -> Any:
    """One event's JSON. NaN and lone surrogates, which orjson refuses, are read; the latter become U+FFFD."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return _whole(json.loads(data, strict=False))


@dataclass(slots=True)
class _Call:
    """A tool call while its pieces arrive."""

    call_id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Assembly:
    """Puts a completion together from the chunks of one stream."""

    def __init__(self, info: ModelInfo, secret: str = "") -> None:
        self._info, self._secret = info, secret
        self._texts: list[str] = []
        self._calls: list[_Call] = []
        self._by_index: dict[Any, _Call] = {}
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._served = ""
        self.spoke = False
        """Whether the model has begun: text, a tool call or hidden reasoning came."""

    @property
    def finished(self) -> bool:
        return self._finish is not None

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
            if isinstance(choice, dict) and choice.get("index") in {0, None}:
                text += self._choose(choice)
        return text

    def _choose(self, choice: Mapping[str, Any]) -> str:
        if isinstance(finish := choice.get("finish_reason"), str):
            self._finish = finish
        # A server that does not stream answers the same call with a whole `message`.
        piece = choice.get("delta") or choice.get("message")
        if not isinstance(piece, dict):
            return ""
        self._add_calls(piece.get("tool_calls"))
        texts = [piece.get("content"), piece.get("refusal")]
        text = "".join(text for text in texts if isinstance(text, str))
        thought = piece.get("reasoning_content") or piece.get("reasoning")
        self.spoke = self.spoke or bool(text or thought or self._calls)
        if text:
            self._texts.append(text)
        return text

    def _add_calls(self, pieces: Any) -> None:
        for position, piece in enumerate(pieces if isinstance(pieces, list) else ()):
            if not isinstance(piece, dict):
                continue
            index, call_id = piece.get("index", position), piece.get("id")
            call = self._by_index.get(index)
            # Some servers number every call 0: another id is another call.
            if call is None or (isinstance(call_id, str) and call_id and call.call_id and call_id != call.call_id):
                call = self._by_index[index] = _Call()
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

    def completion(self, request: ModelRequest, count: Callable[[str], int]) -> Completion:
        """The whole. Usage that the server did not give, or gave as garbage, is counted with `count` and marked.

        Raises UpstreamError for a tool call without a name or whose arguments are not a JSON object.
        """
        text = "".join(self._texts)
        calls = tuple(self._proposal(number, call) for number, call in enumerate(self._calls))
        finish = FINISH.get(self._finish or "", "unknown")
        usage = self._usage
        if usage is None or (usage.output_tokens == 0 and (text or calls)):
            written = text + "".join("".join(call.arguments) for call in self._calls)
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

    def _proposal(self, number: int, call: _Call) -> ToolProposal:
        try:
            arguments = parse("".join(call.arguments) or "{}")
        except ValueError as error:
            raise UpstreamError(f"{self._info.name} asked for a tool with arguments that are not JSON") from error
        if not call.name or not isinstance(arguments, dict):
            raise UpstreamError(f"{self._info.name} asked for a tool without a name or an object of arguments")
        return ToolProposal(call.call_id or f"call_{number}", call.name, arguments)


def read_usage(usage: Any) -> Usage | None:
    """Tokens as the server counted them; None if it did not, or if a count cannot be one."""
    if not isinstance(usage, dict):
        return None
    read = [_tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))]
    if read[0] is None or read[1] is None:
        return None
    details = usage.get("prompt_tokens_details")
    cached = _tokens(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Usage(read[0], read[1], cached_input_tokens=min(cached or 0, read[0]))


def _tokens(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # NaN fails every comparison and infinity the upper one; a whole float (7.0) is a count.
    return int(value) if 0 <= value < MAX_COUNT and value == int(value) else None


def estimated_usage(messages: Sequence[Message], written: str, count: Callable[[str], int]) -> Usage:
    read = sum(count(text) + MESSAGE_TOKENS for text in texts_of(messages))
    return Usage(input_tokens=read + MESSAGE_TOKENS, output_tokens=count(written), estimated=True)
