"""The stations that are the agent's own: decide, approve, act, answer.

`approve` runs again from its start when it is resumed, so nothing in it has an effect before the interrupt; `act`
may run again after a crash, so every call carries an id of ours that its tool uses as an idempotency key.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, TypedDict

from langgraph.runtime import Runtime
from langgraph.types import interrupt

from graphs.agent import turns as rounds
from graphs.agent.calls import barred, definition, propose, waiting
from graphs.agent.reading import reading
from graphs.agent.state import AgentState, Turn
from graphs.context import RunContext
from graphs.errors import UpstreamError
from graphs.events import Ran, Retrieved
from graphs.prompts import Authored, RunData
from graphs.refusal import REFUSAL
from graphs.steps.complete import SpokenUpdate, answer_tokens, prompt_budget, say, tell
from graphs.types import Message, ModelRequest, Passage, Task, ToolResult, ToolSpec, Trust, Verdict

ARGUMENT_TOKENS = 256


class DecideUpdate(TypedDict, total=False):
    turns: tuple[Turn, ...]
    next: Literal["act", "answer", "validate"]
    answer: str
    redacted: tuple[str, ...]
    held: bool
    prompt_version: str


class TurnsUpdate(TypedDict, total=False):
    turns: tuple[Turn, ...]
    read_trust: Trust
    passages: tuple[Passage, ...]
    index_version: str
    read_verdicts: tuple[Verdict, ...]


class AnswerUpdate(TypedDict, total=False):
    answer: str
    redacted: tuple[str, ...]
    held: bool
    prompt_version: str


async def decide(state: AgentState, runtime: Runtime[RunContext]) -> DecideUpdate:
    """Let the model choose a tool or answer; past the step limit it has to answer."""
    ctx = runtime.context
    done = state.get("turns", ())
    native = ctx.gateway.describe(ctx.model, "agent").native_tools
    if native:
        return await _decide_natively(state, runtime, may_call=len(done) < ctx.limits.tool_steps)
    if done:
        return {"next": "answer"}
    return await _choose(state, runtime)


async def _decide_natively(state: AgentState, runtime: Runtime[RunContext], *, may_call: bool) -> DecideUpdate:
    ctx = runtime.context
    done = state.get("turns", ())
    called = rounds.transcript(done)
    spent = sum(_count(ctx, message.content, "agent") + 32 for message in called)
    rendered = ctx.prompts.get("agent.act").render(
        RunData(user=state["question"], history=state["history"]),
        variables={"today": Authored(f"{ctx.clock():%A, %d %B %Y}")},
        budget_tokens=prompt_budget(ctx, ctx.model, "agent") - spent,
        count=lambda text: _count(ctx, text, "agent"),
    )
    request = ModelRequest(
        messages=(*rendered.messages, *called),
        model=ctx.model,
        task="agent",
        tools=ctx.toolbox.specs() if may_call else (),
        max_tokens=answer_tokens(ctx, ctx.model, "agent"),
        question=state["question"],
        grounding=rounds.passages(done),
        response_schema=None if ctx.shape is None else ctx.shape.schema,
    )
    completion, spoken = await say(ctx, request, runtime.stream_writer)
    if not completion.tool_calls or not may_call:
        return {**spoken.update, "turns": done, "next": "validate", "prompt_version": rendered.version}
    asked = [(call.name, call.arguments) for call in completion.tool_calls]
    turn = propose(state, runtime, asked, spoken.text)
    return {"turns": (*done, turn), "next": "act", "prompt_version": rendered.version}


async def _choose(state: AgentState, runtime: Runtime[RunContext]) -> DecideUpdate:
    """For models without tool calls: the tool whose description fits best, its arguments shaped by grammar."""
    ctx = runtime.context
    suggested = await ctx.toolbox.suggest(state["question"])
    if not suggested:
        return {"next": "answer"}
    spec, _ = suggested[0]
    arguments, version = await _fill_in(state["question"], spec, ctx)
    turn = propose(state, runtime, [(spec.name, arguments)], "")
    return {"turns": (turn,), "next": "act", "prompt_version": version}


async def _fill_in(question: str, spec: ToolSpec, ctx: RunContext) -> tuple[Mapping[str, Any], str]:
    rendered = ctx.prompts.get("agent.arguments").render(
        RunData(user=question, history=_shown(spec)),
        # Definitions are pinned: the operator has accepted this one, whoever wrote it.
        variables={"tool": Authored(spec.name), "about": Authored(spec.description)},
        budget_tokens=prompt_budget(ctx, ctx.model, "arguments"),
        count=lambda text: _count(ctx, text, "arguments"),
    )
    completion = await ctx.gateway.complete(
        ModelRequest(
            messages=rendered.messages,
            model=ctx.model,
            task="arguments",
            response_schema=_grammar(spec.parameters),
            max_tokens=ARGUMENT_TOKENS,
            temperature=0.0,
            question=question,
        )
    )
    try:
        arguments = json.loads(completion.text)
    except ValueError as error:
        raise UpstreamError(f"the model's arguments for {spec.name} are not JSON") from error
    if not isinstance(arguments, dict):
        raise UpstreamError(f"the model's arguments for {spec.name} are not an object")
    return arguments, rendered.version


def _shown(spec: ToolSpec) -> tuple[Message, ...]:
    """The tool's examples as earlier turns, which small models follow better than any description."""
    return tuple(
        message
        for asked, arguments in spec.examples
        for message in (Message("user", asked), Message("assistant", json.dumps(arguments)))
    )


def _grammar(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without patterns, which grammars support in part; the toolbox checks the whole schema anyway."""
    properties = {
        name: {key: value for key, value in rule.items() if key != "pattern"}
        for name, rule in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties}


async def approve(state: AgentState, runtime: Runtime[RunContext]) -> TurnsUpdate:
    """Wait for a person's word on the first open call that needs one."""
    *done, turn = state["turns"]
    proposal = waiting(turn, runtime.context)
    assert proposal is not None, "the edge leads here only when a call waits"
    ruling = turn.ruling(proposal.call_id)
    decision = interrupt(
        {
            "call_id": proposal.call_id,
            "tool": proposal.name,
            "arguments": dict(proposal.arguments),
            "risk": ruling.risk,
            "definition": definition(proposal, runtime.context),
            "needs": 2 if ruling.then == "two_person" else 1,
            "reasons": list(ruling.reasons),
            "origins": [asdict(origin) for origin in ruling.origins],
        }
    )
    if decision["decision"] == "approve":
        changed = decision["arguments"]
        arguments = proposal.arguments if changed is None else changed
        return {"turns": (*done, rounds.approved(turn, proposal.call_id, arguments, decision["binding"]))}
    comment = decision["comment"]
    reason = f"A person denied this call: {comment}" if comment else "A person denied this call."
    result = ToolResult(proposal.call_id, proposal.name, "denied", reason)
    runtime.stream_writer(Ran(result))
    return {"turns": (*done, rounds.with_results(turn, [result]))}


async def act(state: AgentState, runtime: Runtime[RunContext]) -> TurnsUpdate:
    """Run what is open, in order."""
    ctx = runtime.context
    *done, turn = state["turns"]
    fresh = []
    for proposal in turn.open:
        result = await barred(state, proposal, ctx) or await ctx.toolbox.run(proposal)
        fresh.append(result)
        runtime.stream_writer(Ran(result))
    turns = (*done, rounds.with_results(turn, fresh))
    thought = await ctx.guard.screen_read("tool", [result.content for result in fresh])
    update: TurnsUpdate = {
        "turns": turns,
        "read_trust": reading(state, turns, ctx.toolbox.specs()).trust,
        "read_verdicts": (*state.get("read_verdicts", ()), *thought),
    }
    passages = rounds.passages(turns)
    if not passages:
        return update
    versions = sorted({result.index_version for result in rounds.results(turns) if result.index_version})
    if any(result.passages for result in fresh):
        runtime.stream_writer(Retrieved(passages, ",".join(versions)))
    return {**update, "passages": passages, "index_version": ",".join(versions)}


async def answer(state: AgentState, runtime: Runtime[RunContext]) -> AnswerUpdate | SpokenUpdate:
    """Close the run on a model without tool calls: from passages as RAG does, else in the tools' own words.

    A model that small retells a number wrongly about as often as rightly; what the tool said needs no retelling.
    """
    ctx = runtime.context
    done = state.get("turns", ())
    passages = rounds.passages(done)
    if done and not passages:
        told = " ".join(_told(result) for result in rounds.results(done))
        return tell(ctx, told, runtime.stream_writer).update
    task: Task = "rag" if passages else "chat"
    prompt = ctx.prompts.get("rag.answer" if passages else "chat.answer")
    rendered = prompt.render(
        RunData(user=state["question"], history=state["history"], passages=passages),
        variables=_variables(prompt.variables, ctx),
        budget_tokens=prompt_budget(ctx, ctx.model, task),
        count=lambda text: _count(ctx, text, task),
    )
    request = ModelRequest(
        messages=rendered.messages,
        model=ctx.model,
        task=task,
        max_tokens=answer_tokens(ctx, ctx.model, task),
        question=state["question"],
        grounding=rendered.passages,
        response_schema=None if ctx.shape is None else ctx.shape.schema,
    )
    _, spoken = await say(ctx, request, runtime.stream_writer)
    return {**spoken.update, "prompt_version": rendered.version}


def _told(result: ToolResult) -> str:
    words = result.content.strip() or "It gave nothing."
    ended = words if words.endswith((".", "!", "?")) else f"{words}."
    return ended if result.status in ("ok", "denied") else f"I could not use {result.name}: {ended}"


def _variables(names: frozenset[str], ctx: RunContext) -> dict[str, Authored]:
    known = {"today": Authored(f"{ctx.clock():%A, %d %B %Y}"), "refusal": Authored(REFUSAL)}
    return {name: known[name] for name in names}


def _count(ctx: RunContext, text: str, task: Task) -> int:
    return ctx.gateway.count_tokens(text, ctx.model, task)


def after_decide(state: AgentState, runtime: Runtime[RunContext]) -> Literal["approve", "act", "answer", "validate"]:
    if state["next"] != "act":
        return state["next"]
    return after_approve(state, runtime)


def after_approve(state: AgentState, runtime: Runtime[RunContext]) -> Literal["approve", "act"]:
    return "approve" if waiting(state["turns"][-1], runtime.context) else "act"
