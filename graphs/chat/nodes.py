"""The one station that is chat's own."""

from langgraph.runtime import Runtime

from graphs.chat.state import ChatState
from graphs.context import RunContext
from graphs.prompts import Authored, RunData
from graphs.steps.complete import SpokenUpdate, answer_tokens, prompt_budget, say
from graphs.types import ModelRequest


class CompleteUpdate(SpokenUpdate):
    prompt_version: str


async def complete(state: ChatState, runtime: Runtime[RunContext]) -> CompleteUpdate:
    ctx = runtime.context
    rendered = ctx.prompts.get("chat.answer").render(
        RunData(user=state["question"], history=state["history"]),
        variables={"today": Authored(f"{ctx.clock():%A, %d %B %Y}")},
        budget_tokens=prompt_budget(ctx, ctx.model, "chat"),
        count=lambda text: ctx.gateway.count_tokens(text, ctx.model, "chat"),
    )
    request = ModelRequest(
        messages=rendered.messages,
        model=ctx.model,
        task="chat",
        max_tokens=answer_tokens(ctx, ctx.model, "chat"),
        question=state["question"],
        response_schema=None if ctx.shape is None else ctx.shape.schema,
    )
    _, spoken = await say(ctx, request, runtime.stream_writer)
    return {**spoken.update, "prompt_version": rendered.version}
