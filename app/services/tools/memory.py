"""A toolbox in memory, for tests and notebooks: every call is remembered and answered by a function."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.services.tools.schema import argument_problems
from app.services.tools.tool import ToolOutput
from graphs.errors import ToolRefused, ToolRetry
from graphs.taint import Policy, Reading, ordinary, rule
from graphs.types import Ruling, ToolProposal, ToolResult, ToolSpec

Answer = Callable[[Mapping[str, Any]], ToolOutput]


class MemoryToolbox:
    """`answers` give each tool's output or raise ToolRetry or ToolRefused; `ran` holds the calls that reached one.

    `suggested` names the tools that fit every question, best first.
    """

    def __init__(
        self,
        answers: Sequence[tuple[ToolSpec, Answer]],
        *,
        suggested: Sequence[str] = (),
        policy: Policy = ordinary,
    ) -> None:
        self._specs = {spec.name: spec for spec, _ in answers}
        self._answers = {spec.name: answer for spec, answer in answers}
        self._suggested = tuple((self._specs[name], 1.0) for name in suggested)
        self._policy = policy
        self._results: dict[str, ToolResult] = {}
        self.ran: list[ToolProposal] = []

    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(self._specs.values())

    async def suggest(self, question: str) -> tuple[tuple[ToolSpec, float], ...]:
        return self._suggested

    def ruling(self, proposal: ToolProposal, read: Reading) -> Ruling:
        if proposal.name not in self._specs:
            return Ruling("deny", "destructive", ("there is no such tool here",))
        return rule(self._specs[proposal.name], proposal, read, self._policy)

    def refusal(self, proposal: ToolProposal) -> ToolResult | None:
        if proposal.name not in self._specs:
            return ToolResult(
                proposal.call_id, proposal.name, "refused", f"there is no tool {proposal.name[:64]!r} here"
            )
        problems = argument_problems(self._specs[proposal.name], proposal.arguments)
        if problems:
            return ToolResult(proposal.call_id, proposal.name, "retry", "; ".join(problems))
        return None

    async def run(self, proposal: ToolProposal) -> ToolResult:
        if proposal.call_id not in self._results:
            self._results[proposal.call_id] = self.refusal(proposal) or self._answer(proposal)
        return self._results[proposal.call_id]

    def _answer(self, proposal: ToolProposal) -> ToolResult:
        self.ran.append(proposal)
        try:
            output = self._answers[proposal.name](proposal.arguments)
        except ToolRetry as error:
            return ToolResult(proposal.call_id, proposal.name, "retry", str(error))
        except ToolRefused as error:
            return ToolResult(proposal.call_id, proposal.name, "refused", str(error))
        return ToolResult(proposal.call_id, proposal.name, "ok", output.content, output.passages, output.index_version)
