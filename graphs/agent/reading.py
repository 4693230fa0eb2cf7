"""What an agent's run has read by the time a model proposes a call."""

from collections.abc import Iterator, Mapping, Sequence

from graphs.agent.state import AgentState, Turn
from graphs.taint import Reading, Source
from graphs.types import ToolResult, ToolSpec, Trust


def reading(state: AgentState, turns: Sequence[Turn], specs: Sequence[ToolSpec]) -> Reading:
    """The question, the history, and what tools gave in those turns.

    Of a tool that is not granted any more nobody says whose words its results were: they are untrusted.
    """
    trusts = {spec.name: spec.trust for spec in specs}
    return Reading(_sources(state, turns, trusts))


def _sources(state: AgentState, turns: Sequence[Turn], trusts: Mapping[str, Trust]) -> Iterator[Source]:
    yield Source("user", "question", "tenant", state["question"])
    for said in state["history"]:
        if said.role == "user":
            yield Source("user", "earlier question", "tenant", said.content)
        else:
            yield Source("earlier", said.role, said.trust, said.content)
    for turn in turns:
        for result in turn.results:
            yield from _of_result(result, trusts)


def _of_result(result: ToolResult, trusts: Mapping[str, Trust]) -> Iterator[Source]:
    trust = "tenant" if result.status == "denied" else trusts.get(result.name, "untrusted")
    for passage in result.passages:
        name = passage.title or passage.document_id
        yield Source("document", name, passage.trust, f"{passage.title}\n{passage.heading}\n{passage.text}")
    if trust == "untrusted" or not result.passages:
        yield Source("tool", result.name, trust, result.content)
