"""A model that says what a test wrote down for it: the double of every provider, and it keeps their contract."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from app.services.gateway.gateway import ModelGateway
from app.services.gateway.tokens import estimate_tokens, estimated_usage
from graphs.errors import UpstreamError, UpstreamRejected
from graphs.types import Completion, Delta, FinishReason, ModelInfo, ModelRequest, ToolProposal, Usage

SCRIPTED: Final = ModelInfo(
    name="scripted",
    version="1",
    provider="scripted",
    context_tokens=8_192,
    max_output_tokens=2_048,
    native_tools=True,
)


@dataclass(frozen=True, slots=True)
class Say:
    """One answer. `pieces` are its deltas; `error` is raised after them in place of the completion.

    `wait` is awaited before the first piece and `wait_between` before each later one and the end, so that a test
    decides when the model speaks. Usage that is not given is estimated.
    """

    pieces: tuple[str, ...] = ()
    tool_calls: tuple[ToolProposal, ...] = ()
    finish_reason: FinishReason | None = None
    usage: Usage | None = None
    error: Exception | None = None
    wait: asyncio.Event | None = None
    wait_between: asyncio.Event | None = None


Line = Say | str | Exception
Script = Sequence[Line] | Callable[[ModelRequest], Line]


class ScriptedProvider:
    """Plays a script line by line, or asks a function for each line. A text is cut into words as its deltas.

    `requests` are the calls so far; `closed_early` counts streams that were cancelled or closed before their end. A
    script that has run out raises UpstreamRejected.
    """

    def __init__(self, script: Script, info: ModelInfo = SCRIPTED) -> None:
        self.info = info
        self.requests: list[ModelRequest] = []
        self.closed_early = 0
        self._script = script
        self._closed = False

    def count_tokens(self, text: str) -> int:
        return estimate_tokens(text)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        if self._closed:
            raise UpstreamError(f"{self.info.name} is closed")
        said = self._next(request)
        try:
            async with aclosing(self._pieces(said)) as pieces:
                async for piece in pieces:
                    yield Delta(piece)
            if said.error is not None:
                raise said.error
        except (asyncio.CancelledError, GeneratorExit):
            self.closed_early += 1
            raise
        yield self._completion(request, said)

    async def close(self) -> None:
        self._closed = True

    def _next(self, request: ModelRequest) -> Say:
        self.requests.append(request)
        if callable(self._script):
            line = self._script(request)
        elif len(self.requests) <= len(self._script):
            line = self._script[len(self.requests) - 1]
        else:
            raise UpstreamRejected(f"the script has {len(self._script)} lines, this is call {len(self.requests)}")
        if isinstance(line, str):
            return Say(pieces=tuple(line.replace(" ", " \0").split("\0")) if line else ())
        return Say(error=line) if isinstance(line, Exception) else line

    async def _pieces(self, said: Say) -> AsyncGenerator[str, None]:
        if said.wait is not None:
            await said.wait.wait()
        for number, piece in enumerate(said.pieces):
            if number and said.wait_between is not None:
                await said.wait_between.wait()
            if self._closed:
                raise UpstreamError(f"{self.info.name} is closed")
            await asyncio.sleep(0)  # a real model gives the loop a turn between tokens
            yield piece
        if said.wait_between is not None:
            await said.wait_between.wait()

    def _completion(self, request: ModelRequest, said: Say) -> Completion:
        text = "".join(said.pieces)
        return Completion(
            text=text,
            model=self.info.name,
            model_version=self.info.version,
            provider=self.info.provider,
            usage=said.usage or estimated_usage(request.messages, text, estimate_tokens),
            finish_reason=said.finish_reason or ("tool_calls" if said.tool_calls else "stop"),
            tool_calls=said.tool_calls,
        )


class ScriptedGateway(ModelGateway):
    """A gateway whose only model plays `script`, for tests of graphs: the real graph, a model that is known."""

    def __init__(self, script: Script, info: ModelInfo = SCRIPTED) -> None:
        self.provider = ScriptedProvider(script, info)
        alone = ModelGateway.of({info.name: self.provider}, default=info.name)
        super().__init__(alone.router, alone.recovery)

    @property
    def requests(self) -> tuple[ModelRequest, ...]:
        return tuple(self.provider.requests)
