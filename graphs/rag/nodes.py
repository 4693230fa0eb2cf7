"""The stations that are RAG's own: retrieve, prompt, complete."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypedDict

from langgraph.runtime import Runtime

from graphs.context import RunContext
from graphs.events import Retrieved, Said
from graphs.prompts import Rendered, RunData, passage_tokens
from graphs.rag.compress import compress
from graphs.rag.state import RagState
from graphs.refusal import REFUSAL
from graphs.steps.complete import answer_tokens, prompt_budget, say
from graphs.types import ModelRequest, Passage


class RetrieveUpdate(TypedDict):
    passages: tuple[Passage, ...]
    index_version: str
    embedder: str


class PromptUpdate(TypedDict):
    rendered: Rendered
    prompt_version: str


class AnswerUpdate(TypedDict):
    answer: str


async def retrieve(state: RagState, runtime: Runtime[RunContext]) -> RetrieveUpdate:
    ctx = runtime.context
    found = await ctx.retriever.search(
        state["question"], collection=ctx.collection, limit=ctx.limits.passages, where=ctx.where
    )
    runtime.stream_writer(Retrieved(found.passages, found.index_version))
    return {"passages": found.passages, "index_version": found.index_version, "embedder": found.embedder}


def found_any(state: RagState) -> Literal["some", "none"]:
    return "some" if state["passages"] else "none"


async def decline(_: RagState, runtime: Runtime[RunContext]) -> AnswerUpdate:
    """With no passage there is nothing to ask a model."""
    runtime.stream_writer(Said(REFUSAL))
    return {"answer": REFUSAL}


async def prompt(state: RagState, runtime: Runtime[RunContext]) -> PromptUpdate:
    """With every passage whole where they fit, else with the sentences of them that touch the question most."""
    ctx = runtime.context
    budget_tokens = prompt_budget(ctx, ctx.model, "rag")

    def count(text: str) -> int:
        return ctx.gateway.count_tokens(text, ctx.model, "rag")

    def render(passages: Sequence[Passage]) -> Rendered:
        return ctx.prompts.get("rag.answer").render(
            RunData(user=state["question"], passages=passages, history=state["history"]),
            variables={"refusal": REFUSAL},
            budget_tokens=budget_tokens,
            count=count,
        )

    rendered = render(state["passages"])
    if len(rendered.passages) < len(state["passages"]):
        room = budget_tokens - rendered.fixed_tokens
        cost = partial(passage_tokens, count=count)
        rendered = render(compress(state["passages"], state["question"], budget_tokens=room, cost=cost))
    return {"rendered": rendered, "prompt_version": rendered.version}


async def complete(state: RagState, runtime: Runtime[RunContext]) -> AnswerUpdate:
    ctx, rendered = runtime.context, state["rendered"]
    request = ModelRequest(
        messages=rendered.messages,
        model=ctx.model,
        task="rag",
        max_tokens=answer_tokens(ctx, ctx.model, "rag"),
        question=state["question"],
        grounding=rendered.passages,
    )
    _, answer = await say(ctx, request, runtime.stream_writer)
    return {"answer": answer}
