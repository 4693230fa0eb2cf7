"""A tool within what the operator allows it: time, size, calls at once, and an effect that it has once.

A call of a tool with an effect is written down before it runs. Asked for again after a crash it is run again only where
the tool itself makes one effect of two calls with one key; else what it did is not known, and the model is told so.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

from app.config.tools import ToolGrant
from app.services.tools.calls import Called, CallOutcome
from app.services.tools.content import shown
from app.services.tools.lane import Lane
from app.services.tools.tool import Tool, ToolCall, ToolOutput
from graphs.errors import PilothouseError, ToolRefused, ToolRetry, UpstreamTimeout
from graphs.taint import RISKS
from graphs.toolhash import definition_hash
from graphs.types import Risk, ToolSpec

Outcome = Literal["ok", "retry", "refused", "failed", "cancelled"]
Observe = Callable[[str, Outcome, float], None]
"""Hears of each call that was admitted: the tool, how it ended, and the seconds it took."""


class Book(Protocol):
    """Where calls with an effect are written down (`CallBook`)."""

    async def begin(self, call: ToolCall, called: Called) -> CallOutcome | None: ...

    async def end(self, call: ToolCall, outcome: CallOutcome, content: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one call."""

    timeout_s: float = 30.0
    max_output_chars: int = 16_000

    @classmethod
    def of(cls, grant: ToolGrant) -> "Bounds":
        return cls(grant.timeout_s, grant.max_output_chars)


USUAL: Final = Bounds()


class BoundedTool:
    """`risk` above the tool's own raises it. `repeatable` tools may run twice with one key. Without a book, as in tests
    and notebooks, nothing is written down."""

    def __init__(
        self,
        tool: Tool,
        bounds: Bounds = USUAL,
        *,
        risk: Risk | None = None,
        lane: Lane | None = None,
        book: Book | None = None,
        repeatable: bool = False,
        observe: Observe = lambda _name, _outcome, _took_s: None,
    ) -> None:
        self.spec: ToolSpec = raised(tool.spec, risk)
        self.examples = tool.examples
        self._tool, self._bounds = tool, bounds
        self._lane = lane or Lane(tool.spec.name, places=8)
        self._book = None if self.spec.risk == "read" else book
        self._called = Called(self.spec.name, definition_hash(self.spec), self.spec.risk)
        self._repeatable, self._observe = repeatable, observe

    async def run(self, call: ToolCall) -> ToolOutput:
        async with self._lane.place(self._bounds.timeout_s):
            ticket = self._lane.admit()
            try:
                await self._begin(call)
            except BaseException:
                self._lane.breaker.abandon(ticket)
                raise
            return await self._judged(call, ticket)

    async def _begin(self, call: ToolCall) -> None:
        earlier = None if self._book is None else await self._book.begin(call, self._called)
        if earlier is None or self._repeatable:
            return
        if earlier == "begun":
            raise ToolRefused(f"this call of {self.spec.name} was begun before; its outcome is not known")
        raise ToolRefused(f"this call of {self.spec.name} has run before and is not run again; it ended as {earlier}")

    async def _judged(self, call: ToolCall, ticket: int) -> ToolOutput:
        began = time.monotonic()
        outcome: Outcome = "failed"
        try:
            with self._lane.judged(ticket):
                output = await self._timed(call)
            outcome = "ok"
        except (ToolRetry, ToolRefused) as error:
            outcome = "retry" if isinstance(error, ToolRetry) else "refused"
            await self._end(call, outcome, str(error))
            raise
        except PilothouseError as error:
            # One that says no has done nothing; of one that broke nobody knows, and the book says begun.
            if error.kind in {"invalid", "denied", "missing", "conflict"}:
                outcome = "refused"
                await self._end(call, outcome, str(error))
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._observe(self.spec.name, outcome, time.monotonic() - began)
        await self._end(call, "ok", output.content)
        return output

    async def _end(self, call: ToolCall, outcome: CallOutcome, content: str) -> None:
        if self._book is not None:
            await self._book.end(call, outcome, content)

    async def _timed(self, call: ToolCall) -> ToolOutput:
        limit_s = self._bounds.timeout_s
        try:
            async with asyncio.timeout(limit_s):
                output = await self._tool.run(call)
        except TimeoutError as error:
            # Whether it had an effect is not known, so trying again is not for the model to decide.
            raise UpstreamTimeout(f"{self.spec.name} gave no answer within {limit_s:g} s") from error
        return replace(output, content=self._cut(shown(output.content)))

    def _cut(self, content: str) -> str:
        most = self._bounds.max_output_chars
        if len(content) <= most:
            return content
        return f"{content[:most]}\n[cut: {len(content) - most} more characters]"


def raised(spec: ToolSpec, risk: Risk | None) -> ToolSpec:
    """The tool at that risk, if it is the greater one: a risk is never lowered."""
    return spec if risk is None or RISKS.index(risk) <= RISKS.index(spec.risk) else replace(spec, risk=risk)
