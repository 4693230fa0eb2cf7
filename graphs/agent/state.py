"""State of the tool agent. It is checkpointed after every step, because an approval can take days."""

from dataclasses import dataclass
from typing import Literal

from graphs.steps.outcome import Outcome
from graphs.types import Ruling, ToolProposal, ToolResult, Trust


@dataclass(frozen=True, slots=True)
class Turn:
    """One round of the agent: what the model asked for, what policy said of each call, and what came of it so far.

    `decided` holds the call ids that people have approved and `bound` the digests of those calls as they approved them;
    a denied call has its result at once.
    """

    proposals: tuple[ToolProposal, ...]
    said: str = ""
    decided: tuple[str, ...] = ()
    bound: tuple[str, ...] = ()
    results: tuple[ToolResult, ...] = ()
    rulings: tuple[Ruling, ...] = ()

    def ruling(self, call_id: str) -> Ruling:
        """What policy said of the call when the model proposed it."""
        return dict(zip((proposal.call_id for proposal in self.proposals), self.rulings, strict=True))[call_id]

    @property
    def open(self) -> tuple[ToolProposal, ...]:
        """Proposals without a result, in order."""
        done = {result.call_id for result in self.results}
        return tuple(proposal for proposal in self.proposals if proposal.call_id not in done)


class AgentState(Outcome, total=False):
    """`turns` are the rounds so far, the last one perhaps unfinished; `next` is where `decide` wants to go.

    `read_trust` is that of the least trusted text so far.
    """

    turns: tuple[Turn, ...]
    read_trust: Trust
    next: Literal["act", "answer", "validate"]
