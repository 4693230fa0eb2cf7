"""Calls the model and lets the answer out as it comes, through the output guard."""

from collections.abc import Callable

from graphs.context import RunContext
from graphs.errors import UpstreamError
from graphs.events import Continued, Event, Said
from graphs.types import Completion, Continuation, Delta, ModelRequest, Task

# The embedded models reserve room for the answer inside their window; more than half of it would starve the prompt.
LARGEST_ANSWER_SHARE = 0.25


def answer_tokens(ctx: RunContext, model: str | None, task: Task) -> int:
    """How many tokens the answer may take on that model."""
    info = ctx.gateway.describe(model, task)
    return min(ctx.limits.answer_tokens, info.max_output_tokens, int(info.context_tokens * LARGEST_ANSWER_SHARE))


def prompt_budget(ctx: RunContext, model: str | None, task: Task) -> int:
    """How many tokens the prompt may take on that model."""
    return ctx.gateway.describe(model, task).context_tokens - answer_tokens(ctx, model, task)


async def say(ctx: RunContext, request: ModelRequest, write: Callable[[Event], None]) -> tuple[Completion, str]:
    """The completion, and its text as it left: with the output patterns redacted.

    Raises UpstreamError when the provider's stream ends without a completion.
    """
    guarded = ctx.guard.stream_filter()
    said: list[str] = []
    completion: Completion | None = None

    def let_out(text: str) -> None:
        if text:
            said.append(text)
            write(Said(text))

    async for item in ctx.gateway.stream(request):
        if isinstance(item, Continuation):
            write(Continued(item.model))
        if isinstance(item, Delta):
            let_out(guarded.feed(item.text))
        else:
            completion = item
    if completion is None:
        raise UpstreamError("the model's stream ended without a completion")
    let_out(guarded.close())
    return completion, "".join(said)
