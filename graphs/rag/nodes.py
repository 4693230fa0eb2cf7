"""The stations that are RAG's own: retrieve, prompt, complete."""

from typing import Literal, TypedDict

from langgraph.runtime import Runtime

from graphs.context import RunContext
from graphs.events import Retrieved, Said
from graphs.prompts import Rendered, RunData
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
    ctx = runtime.context
    rendered = ctx.prompts.get("rag.answer").render(
        RunData(user=state["question"], passages=state["passages"], history=state["history"]),
        variables={"refusal": REFUSAL},
        budget_tokens=prompt_budget(ctx, ctx.model, "rag"),
        count=lambda text: ctx.gateway.count_tokens(text, ctx.model, "rag"),
    )
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
