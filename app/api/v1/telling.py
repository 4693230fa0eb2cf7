"""An answer on OpenAI's wire, told on another one that speaks of parts: texts, refusals, tool calls, one at a time."""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from app.api.v1.completions import Completions
from app.api.v1.door import Asked, Streamed, Whole
from app.api.v1.refusal import Refusal
from app.api.v1.shapes import ChatBody
from app.ids import new_id
from app.services.gateway.provider import WireEvent
from graphs.errors import UpstreamError
from graphs.types import Usage

Kind = Literal["text", "refusal", "call"]


@dataclass(slots=True)
class Part:
    """A piece of the answer; `place` counts from 0. `pieces` are its text, or a call's arguments as JSON."""

    kind: Kind
    place: int
    call_id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.pieces)


class Teller(ABC):
    """Hears the chunks, or the whole, of one choice, and gives the frames of its own wire.

    `hear` for each event, then `end`; `broke` in its place where the answer fails. Whoever does not stream leaves the
    frames aside and reads `answer` after the end.
    """

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.finish = ""
        self.extra: dict[str, Any] = {}
        self.reasoning_tokens = 0
        self._open: Part | None = None
        self._calls: dict[Any, Part] = {}
        self._begun = False
        self._frames: list[bytes] = []

    def hear(self, data: Mapping[str, Any]) -> bytes:
        """Raises UpstreamError for pieces of a call that is over."""
        if not self._begun:
            self._begun = True
            self._begin()
        if "pilothouse" in data:
            self.extra = {"pilothouse": data["pilothouse"]}
        if isinstance(usage := data.get("usage"), dict):
            self.reasoning_tokens = _reasoning_tokens(usage)
        choices = data.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("index") in (0, None):
                self._choice(choice)
        return self._flush()

    def end(self, usage: Usage | None) -> bytes:
        self._close()
        self._end(usage or Usage())
        return self._flush()

    def broke(self, told: Refusal) -> bytes:
        self._break(told)
        return self._flush()

    @abstractmethod
    def answer(self) -> dict[str, Any]:
        """The whole, after the end."""

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _opened(self, part: Part) -> None: ...

    @abstractmethod
    def _said(self, part: Part, piece: str) -> None: ...

    @abstractmethod
    def _closed(self, part: Part) -> None: ...

    @abstractmethod
    def _end(self, usage: Usage) -> None: ...

    @abstractmethod
    def _break(self, told: Refusal) -> None: ...

    def _tell(self, kind: str, **fields: Any) -> None:
        self._frames.append(b"event: " + kind.encode() + b"\ndata: " + orjson.dumps({"type": kind, **fields}) + b"\n\n")

    def _flush(self) -> bytes:
        frames, self._frames = b"".join(self._frames), []
        return frames

    def _choice(self, choice: Mapping[str, Any]) -> None:
        piece = choice.get("delta") or choice.get("message")
        if isinstance(piece, dict):
            for text in _texts(piece.get("content")):
                self._say(self._part("text"), text)
            for text in _texts(piece.get("refusal")):
                self._say(self._part("refusal"), text)
            calls = piece.get("tool_calls")
            for position, call in enumerate(calls if isinstance(calls, list) else ()):
                if isinstance(call, dict):
                    self._call(call, position)
        if isinstance(finish := choice.get("finish_reason"), str):
            self.finish = finish

    def _call(self, call: Mapping[str, Any], position: int) -> None:
        index, call_id = call.get("index", position), call.get("id")
        index = index if isinstance(index, int) else position
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        part = self._calls.get(index)
        # Some servers number every call 0: another id is another call.
        if part is None or (isinstance(call_id, str) and call_id and call_id != part.call_id):
            name = function.get("name")
            given = call_id if isinstance(call_id, str) and call_id else f"call_{new_id()}"
            part = self._calls[index] = self._part("call", given, name if isinstance(name, str) else "")
        elif part is not self._open:
            raise UpstreamError("the model server sent pieces of a tool call that was over")
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = orjson.dumps(arguments).decode()
        if isinstance(arguments, str) and arguments:
            self._say(part, arguments)

    def _part(self, kind: Kind, call_id: str = "", name: str = "") -> Part:
        """The part that is open, if it is of that kind and no call; else a new one."""
        if self._open is not None and self._open.kind == kind != "call":
            return self._open
        self._close()
        part = self._open = Part(kind, len(self.parts), call_id, name)
        self.parts.append(part)
        self._opened(part)
        return part

    def _say(self, part: Part, piece: str) -> None:
        part.pieces.append(piece)
        self._said(part, piece)

    def _close(self) -> None:
        if self._open is not None:
            part, self._open = self._open, None
            self._closed(part)


def _reasoning_tokens(usage: Mapping[str, Any]) -> int:
    """How many of the answer's tokens were thought and not said; 0 where the server does not tell."""
    details = usage.get("completion_tokens_details")
    tokens = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return tokens if isinstance(tokens, int) and tokens > 0 else 0


def _texts(content: Any) -> Iterator[str]:
    if isinstance(content, str) and content:
        yield content
    elif isinstance(content, list):
        yield from (part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


async def tell(completions: Completions, asked: Asked, body: ChatBody, teller: Teller) -> Whole | Streamed:
    """The answer on the teller's wire. Raises as chat completions do."""
    frames = _frames(completions, asked, body, teller)
    if body.stream:
        return Streamed(frames, teller.broke)
    async with aclosing(frames):
        async for _ in frames:
            pass
    return Whole(orjson.dumps(teller.answer()))


async def _frames(
    completions: Completions, asked: Asked, body: ChatBody, teller: Teller
) -> AsyncGenerator[bytes, None]:
    together = b""
    try:
        async with aclosing(completions.items(asked, body)) as items:
            async for item in items:
                together += teller.hear(item.data) if isinstance(item, WireEvent) else teller.end(item.usage)
                if together and not (isinstance(item, WireEvent) and item.more):
                    yield together
                    together = b""
    except Exception:
        if together:
            yield together  # what came before the answer broke
        raise
