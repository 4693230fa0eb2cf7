"""Asks a model to go on with an answer that broke off after a part of it had left."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final

from graphs.types import Completion, Continuation, Delta, Message, ModelRequest

INSTRUCTION: Final = (
    "Your answer was cut off by a fault. Go on exactly where it stops: repeat nothing of it, do not begin anew, say "
    "nothing of the interruption."
)


def continued(request: ModelRequest, prefix: str) -> ModelRequest:
    """The request with what has been said as the model's own turn."""
    return replace(request, messages=(*request.messages, Message("assistant", prefix), Message("user", INSTRUCTION)))


def continued_body(body: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The same for a body of OpenAI's chat completions."""
    turns = [{"role": "assistant", "content": prefix}, {"role": "user", "content": INSTRUCTION}]
    return {**body, "messages": [*body["messages"], *turns]}


async def marked(
    items: AsyncGenerator[Delta | Completion, None], prefix: str, model: str
) -> AsyncGenerator[Delta | Completion, None]:
    """The items of the model that goes on: the first says so, and the completion has the whole text."""
    begun = False
    async with aclosing(items):
        async for item in items:
            if not begun:
                begun = True
                yield Continuation(item.text if isinstance(item, Delta) else "", model)
                if isinstance(item, Delta):
                    continue
            yield replace(item, text=prefix + item.text) if isinstance(item, Completion) else item
