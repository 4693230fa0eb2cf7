"""Calls the model and lets the answer out as it comes, through the output guard."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

from graphs.context import RunContext
from graphs.errors import UpstreamError
from graphs.events import Continued, Event, Said
from graphs.types import Completion, Continuation, Delta, ModelRequest, Task

# The embedded models reserve room for the answer inside their window; more than half of it would starve the prompt.
LARGEST_ANSWER_SHARE = 0.25


class SpokenUpdate(TypedDict):
    answer: str
    redacted: tuple[str, ...]
    held: bool


@dataclass(frozen=True, slots=True)
class Spoken:
    """A text as the output patterns left it; `redacted` names those that changed it.

    One that is `held` has not left yet: `validate` lets it out once it is checked.
    """

    text: str
    redacted: tuple[str, ...]
    held: bool

    @property
    def update(self) -> SpokenUpdate:
        return {"answer": self.text, "redacted": self.redacted, "held": self.held}


def answer_tokens(ctx: RunContext, model: str | None, task: Task) -> int:
    """How many tokens the answer may take on that model."""
    info = ctx.gateway.describe(model, task)
    return min(ctx.limits.answer_tokens, info.max_output_tokens, int(info.context_tokens * LARGEST_ANSWER_SHARE))


def prompt_budget(ctx: RunContext, model: str | None, task: Task) -> int:
    """How many tokens the prompt may take on that model."""
    return ctx.gateway.describe(model, task).context_tokens - answer_tokens(ctx, model, task)


async def say(ctx: RunContext, request: ModelRequest, write: Callable[[Event], None]) -> tuple[Completion, Spoken]:
    """The completion, and its text as it left.

    Raises UpstreamError when the provider's stream ends without a completion.
    """
    out = _Outlet(ctx, write, held=_is_held(ctx, grounded=bool(request.grounding)))
    completion: Completion | None = None
    async for item in ctx.gateway.stream(request):
        if isinstance(item, Continuation):
            write(Continued(item.model))
        if isinstance(item, Delta):
            out.feed(item.text)
        else:
            completion = item
    if completion is None:
        raise UpstreamError("the model's stream ended without a completion")
    return completion, out.close()


def tell(ctx: RunContext, text: str, write: Callable[[Event], None]) -> Spoken:
    """The same for a text that no model wrote, such as a tool's."""
    out = _Outlet(ctx, write, held=_is_held(ctx, grounded=False))
    out.feed(text)
    return out.close()


def _is_held(ctx: RunContext, *, grounded: bool) -> bool:
    """Whether this answer may yet be changed or refused by what can only be checked of the whole."""
    return ctx.shape is not None or ctx.answers.holds(grounded=grounded)


class _Outlet:
    """One answer on its way out."""

    def __init__(self, ctx: RunContext, write: Callable[[Event], None], *, held: bool) -> None:
        self._filter, self._write, self._held = ctx.guard.stream_filter(), write, held
        self._said: list[str] = []

    def feed(self, text: str) -> None:
        self._let_out(self._filter.feed(text))

    def close(self) -> Spoken:
        self._let_out(self._filter.close())
        return Spoken("".join(self._said), self._filter.reasons, self._held)

    def _let_out(self, text: str) -> None:
        if text:
            self._said.append(text)
            if not self._held:
                self._write(Said(text))
