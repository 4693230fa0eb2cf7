"""The way of a call from what a model asks for to what may run: ruled on, put to people, held to what they approved."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langgraph.runtime import Runtime

from graphs.agent.reading import reading
from graphs.agent.state import AgentState, Turn
from graphs.context import RunContext
from graphs.events import Proposed
from graphs.taint import Reading, is_stricter
from graphs.toolhash import call_hash, definition_hash
from graphs.types import Ruling, ToolProposal, ToolResult

CALLS_PER_TURN: Final = 16
_TOO_MANY: Final = Ruling("deny", "destructive", (f"a model may ask for {CALLS_PER_TURN} calls at a time",))


def propose(
    state: AgentState, runtime: Runtime[RunContext], calls: Sequence[tuple[str, Mapping[str, Any]]], said: str
) -> Turn:
    """A new round: each call with an id of ours, and what policy says of it by all that the run has read so far."""
    ctx, done = runtime.context, state.get("turns", ())
    # Providers repeat their ids from turn to turn; ours must be unique because tools deduplicate by them.
    proposals = tuple(
        ToolProposal(f"call_{ctx.run_id[:12]}_{len(done)}_{number}", name, arguments)
        for number, (name, arguments) in enumerate(calls)
    )
    read = reading(state, done, ctx.toolbox.specs())
    rulings = tuple(_ruling(number, proposal, read, ctx) for number, proposal in enumerate(proposals))
    for proposal, ruling in zip(proposals, rulings, strict=True):
        runtime.stream_writer(Proposed(proposal, ruling))
    return Turn(proposals, said, rulings=rulings)


def waiting(turn: Turn, ctx: RunContext) -> ToolProposal | None:
    """The first open call that needs a person's word and has it not."""
    for proposal in turn.open:
        if proposal.call_id in turn.decided or ctx.toolbox.refusal(proposal) is not None:
            continue
        if turn.ruling(proposal.call_id).then in {"ask", "two_person"}:
            return proposal
    return None


async def barred(state: AgentState, proposal: ToolProposal, ctx: RunContext) -> ToolResult | None:
    """Why an open call of the last turn may not run now, told to the model; None if it may.

    Policy is asked anew, because days may have passed and people may have changed the arguments.
    """
    *done, turn = state["turns"]
    if ctx.toolbox.refusal(proposal) is not None:
        return None  # the toolbox turns it away itself, and counts that
    asked = turn.ruling(proposal.call_id)
    number = next(at for at, other in enumerate(turn.proposals) if other.call_id == proposal.call_id)
    now = _ruling(number, proposal, reading(state, done, ctx.toolbox.specs()), ctx)
    if now.then == "deny" or asked.then == "deny":
        return _refused(proposal, "Policy does not allow this call in this run.")
    if is_stricter(now, asked):
        return _refused(proposal, "Policy asks for more by now than was asked for this call: it did not run.")
    if asked.then == "allow" or _bound(proposal, ctx) in turn.bound:
        return None
    await ctx.escalation.raise_("a call was not the approved one", detail=f"{proposal.name} {proposal.call_id}")
    told = "Its arguments, or the tool itself, are not those that were approved: it did not run."
    return _refused(proposal, told)


def definition(proposal: ToolProposal, ctx: RunContext) -> str:
    return next((definition_hash(spec) for spec in ctx.toolbox.specs() if spec.name == proposal.name), "")


def _ruling(number: int, proposal: ToolProposal, read: Reading, ctx: RunContext) -> Ruling:
    return ctx.toolbox.ruling(proposal, read) if number < CALLS_PER_TURN else _TOO_MANY


def _bound(proposal: ToolProposal, ctx: RunContext) -> str:
    who = {"run_id": ctx.run_id, "tenant_id": ctx.tenant_id, "user_id": ctx.user_id}
    return call_hash(proposal, definition(proposal, ctx), **who)


def _refused(proposal: ToolProposal, told: str) -> ToolResult:
    return ToolResult(proposal.call_id, proposal.name, "refused", told)
