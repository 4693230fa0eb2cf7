"""The stations that are RAG's own: reword, expand, retrieve, prompt, complete, decline."""

from collections.abc import Sequence
from functools import partial
from typing import Literal, TypedDict

from langgraph.runtime import Runtime

from graphs.context import RunContext
from graphs.events import Retrieved, Said
from graphs.prompts import Authored, Rendered, RunData, passage_tokens
from graphs.rag.compress import compress
from graphs.rag.state import RagState
from graphs.rag.wording import Variants, Wording, Writer, varied, worded
from graphs.refusal import REFUSAL
from graphs.steps.complete import SpokenUpdate, answer_tokens, prompt_budget, say
from graphs.types import ModelRequest, Passage, Verdict


class RewordUpdate(TypedDict):
    wording: Wording


class ExpandUpdate(TypedDict):
    variants: Variants


class RetrieveUpdate(TypedDict):
    passages: tuple[Passage, ...]
    index_version: str
    embedder: str
    reranked_by: str
    not_reranked: str
    read_verdicts: tuple[Verdict, ...]


class PromptUpdate(TypedDict):
    rendered: Rendered
    prompt_version: str


class DeclineUpdate(TypedDict):
    answer: str


async def reword(state: RagState, runtime: Runtime[RunContext]) -> RewordUpdate:
    """A follow-up as a question that a search can stand on. The user's own stays what is answered."""
    ctx = runtime.context
    return {"wording": await worded(state["question"], state["history"], ctx.policy, _writer(ctx))}


def wants_variants(_: RagState, runtime: Runtime[RunContext]) -> Literal["some", "none"]:
    policy = runtime.context.policy
    return "some" if policy.variants or policy.no_variants else "none"


async def expand(state: RagState, runtime: Runtime[RunContext]) -> ExpandUpdate:
    ctx = runtime.context
    return {"variants": await varied(state["wording"].query, ctx.policy, _writer(ctx))}


async def retrieve(state: RagState, runtime: Runtime[RunContext]) -> RetrieveUpdate:
    ctx = runtime.context
    found = await ctx.retriever.search(
        state["wording"].query,
        collection=ctx.collection,
        limit=ctx.limits.passages,
        where=ctx.where,
        variants=state["variants"].texts if "variants" in state else (),
        fusion=ctx.policy.fusion,
        rerank=ctx.policy.rerank,
    )
    runtime.stream_writer(Retrieved(found.passages, found.index_version))
    return {
        "passages": found.passages,
        "index_version": found.index_version,
        "embedder": found.embedder,
        "reranked_by": found.reranked_by,
        "not_reranked": found.not_reranked,
        "read_verdicts": await ctx.guard.screen_read("retrieved", [passage.text for passage in found.passages]),
    }


def found_any(state: RagState) -> Literal["some", "none"]:
    return "some" if state["passages"] else "none"


async def decline(_: RagState, runtime: Runtime[RunContext]) -> DeclineUpdate:
    """With no passage there is nothing to ask a model."""
    runtime.stream_writer(Said(REFUSAL))
    return {"answer": REFUSAL}


async def prompt(state: RagState, runtime: Runtime[RunContext]) -> PromptUpdate:
    """With every passage whole where they fit, else with the sentences of them that touch the question most.

    It holds the question as the user asked it, never what was searched in its place.
    """
    ctx = runtime.context
    budget_tokens = prompt_budget(ctx, ctx.model, "rag")

    def count(text: str) -> int:
        return ctx.gateway.count_tokens(text, ctx.model, "rag")

    def render(passages: Sequence[Passage]) -> Rendered:
        return ctx.prompts.get("rag.answer").render(
            RunData(user=state["question"], passages=passages, history=state["history"]),
            variables={"refusal": Authored(REFUSAL)},
            budget_tokens=budget_tokens,
            count=count,
        )

    rendered = render(state["passages"])
    if len(rendered.passages) < len(state["passages"]):
        room = budget_tokens - rendered.fixed_tokens
        cost = partial(passage_tokens, count=count)
        rendered = render(compress(state["passages"], state["wording"].query, budget_tokens=room, cost=cost))
    return {"rendered": rendered, "prompt_version": rendered.version}


async def complete(state: RagState, runtime: Runtime[RunContext]) -> SpokenUpdate:
    ctx, rendered = runtime.context, state["rendered"]
    request = ModelRequest(
        messages=rendered.messages,
        model=ctx.model,
        task="rag",
        max_tokens=answer_tokens(ctx, ctx.model, "rag"),
        question=state["wording"].query,
        grounding=rendered.passages,
        response_schema=None if ctx.shape is None else ctx.shape.schema,
    )
    _, spoken = await say(ctx, request, runtime.stream_writer)
    return spoken.update


def _writer(ctx: RunContext) -> Writer:
    return Writer(ctx.gateway, ctx.prompts, ctx.model)
