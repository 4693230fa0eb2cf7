"""Pure helpers over the rounds of an agent."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from graphs.agent.state import Turn
from graphs.fence import fence, fenced
from graphs.types import Message, Passage, ToolProposal, ToolResult


def with_results(turn: Turn, results: Sequence[ToolResult]) -> Turn:
    return replace(turn, results=(*turn.results, *results))


def approved(turn: Turn, call_id: str, arguments: Mapping[str, object], bound: str) -> Turn:
    """The turn with that call decided, its arguments as the people who approved it left them."""
    proposals = tuple(
        ToolProposal(call_id, proposal.name, arguments) if proposal.call_id == call_id else proposal
        for proposal in turn.proposals
    )
    return replace(turn, proposals=proposals, decided=(*turn.decided, call_id), bound=(*turn.bound, bound))


def results(turns: Sequence[Turn]) -> tuple[ToolResult, ...]:
    return tuple(result for turn in turns for result in turn.results)


def passages(turns: Sequence[Turn]) -> tuple[Passage, ...]:
    """What the tools brought to read, each chunk once, in order."""
    by_chunk = {passage.chunk_id: passage for result in results(turns) for passage in result.passages}
    return tuple(by_chunk.values())


def transcript(turns: Sequence[Turn]) -> tuple[Message, ...]:
    """The rounds as a model with native tool calls reads them: its call, then every result."""
    messages: list[Message] = []
    for turn in turns:
        messages.append(Message("assistant", turn.said, tool_calls=turn.proposals))
        messages += [Message("tool", _told(result), tool_call_id=result.call_id) for result in turn.results]
    return tuple(messages)


def _told(result: ToolResult) -> str:
    return f"{result.status}:\n{fence('tool_results', fenced(result.content))}"
