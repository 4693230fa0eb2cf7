"""A completion put together from the events of Anthropic's Messages API."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson

from app.services.gateway import openai_wire
from app.services.gateway.anthropic_wire import ANSWER_TOOL
from app.services.gateway.upstream import failure
from app.services.gateway.wire import PartialCall, count_of, parse_event
from graphs.errors import UpstreamError
from graphs.types import Completion, FinishReason, ModelInfo, ModelRequest, ToolProposal, Usage

FINISH: Final[Mapping[str, FinishReason]] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_COUNTS: Final = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")


class Assembly(openai_wire.Assembly):
    """Hears this wire's events and puts together what they bring as OpenAI's does.

    With `by_tool` the answer is the input of ANSWER_TOOL.
    """

    def __init__(self, info: ModelInfo, secret: str = "", *, by_tool: bool = False) -> None:
        super().__init__(info, secret)
        self._by_tool = by_tool
        self._blocks: dict[int, PartialCall | None] = {}  # None for the tool through which the answer comes
        self._counts: dict[str, int | None] = {}
        self._counted = self._answered = False

    def hear(self, data: bytes) -> str:
        event = parse_event(self._info.name, data)
        if not isinstance(event, dict):
            raise UpstreamError(f"{self._info.name} sent an event that is not an object")
        if (error := event.get("error")) is not None:
            raise failure(self._info.name, 200, error, secret=self._secret)
        match event.get("type"):
            case "message_start":
                self._begin(_object(event, "message"))
            case "content_block_start":
                return self._open(_index(event), _object(event, "content_block"))
            case "content_block_delta":
                return self._add(_index(event), _object(event, "delta"))
            case "message_delta":
                self._end(_object(event, "delta"), event.get("usage"))
            case "message_stop":
                self.over = True
            case "message":
                return self._whole(event)
        return ""  # pings, ends of blocks, and what a later version may add

    def _begin(self, message: Mapping[str, Any]) -> None:
        if isinstance(served := message.get("model"), str):
            self._served = served
        self._count(message.get("usage"))

    def _open(self, index: int, block: Mapping[str, Any]) -> str:
        if block.get("type") == "tool_use":
            self.pieces += 1
            given = orjson.dumps(block["input"]).decode() if block.get("input") else ""
            if self._by_tool and block.get("name") == ANSWER_TOOL:
                self._blocks[index] = None
                self._answered = True
                return self._say(given)
            call_id, name = (value if isinstance(value := block.get(key), str) else "" for key in ("id", "name"))
            call = self._blocks[index] = PartialCall(call_id, name, [given])
            self._calls.append(call)
        text = block.get("text")
        return self._say(text) if isinstance(text, str) and not self._by_tool else ""

    def _add(self, index: int, delta: Mapping[str, Any]) -> str:
        text, arguments = delta.get("text"), delta.get("partial_json")
        if isinstance(text, str):
            return "" if self._by_tool else self._say(text)
        if isinstance(arguments, str) and index in self._blocks:
            call = self._blocks[index]
            if call is None:
                return self._say(arguments)
            call.arguments.append(arguments)
        self.pieces += bool(arguments or delta.get("thinking"))
        return ""

    def _say(self, text: str) -> str:
        if text:
            self._texts.append(text)
            self.pieces += 1
        return text

    def _end(self, delta: Mapping[str, Any], usage: Any) -> None:
        if isinstance(stop := delta.get("stop_reason"), str):
            self._finish = stop
            self.pieces += 1
        # What a message starts with is no count of what it will say.
        self._counted = self._counted or (isinstance(usage, dict) and "output_tokens" in usage)
        self._count(usage)

    def _whole(self, message: Mapping[str, Any]) -> str:
        """The answer of a server that does not stream."""
        self._begin(message)
        blocks = message.get("content")
        opened = enumerate(blocks if isinstance(blocks, list) else ())
        text = "".join(self._open(index, block) for index, block in opened if isinstance(block, dict))
        self._end(message, message.get("usage"))
        self.over = True
        return text

    def _count(self, usage: Any) -> None:
        """Counts are cumulative: a later one replaces an earlier, and one that cannot be a count spoils it."""
        if isinstance(usage, dict):
            said = {name: usage[name] for name in _COUNTS if usage.get(name) is not None}
            self._counts |= {name: count_of(value) for name, value in said.items()}

    def told_usage(self) -> Usage | None:
        """Input tokens as ours count them: the vendor's leaves out what came from the cache or went into it."""
        if not self._counted or not {"input_tokens", "output_tokens"} <= self._counts.keys():
            return None
        fresh, written, cached, stored = (self._counts.get(name, 0) for name in _COUNTS)
        if fresh is None or written is None:
            return None
        cached, stored = cached or 0, stored or 0
        return Usage(fresh + cached + stored, written, cached_input_tokens=cached, cache_write_tokens=stored)

    def completion(self, request: ModelRequest, count: Callable[[str], int]) -> Completion:
        """Raises UpstreamError as OpenAI's does, and for an answer in another form than was asked for."""
        completion = super().completion(request, count)
        finish = self._reason(completion.tool_calls)
        if self._by_tool and finish == "stop" and not self._answered:
            raise UpstreamError(f"{self._info.name} did not answer in the form that it was asked for")
        return replace(completion, finish_reason=finish)

    def _reason(self, calls: Sequence[ToolProposal]) -> FinishReason:
        finish = FINISH.get(self._finish or "", "unknown")
        if calls and finish in {"stop", "unknown"}:
            return "tool_calls"
        return "stop" if finish == "tool_calls" and not calls else finish  # the answer's own tool is none


def _object(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = event.get(name)
    return inner if isinstance(inner, dict) else {}


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    return index if isinstance(index, int) else 0
