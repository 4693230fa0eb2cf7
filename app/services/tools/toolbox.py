"""The tools granted to one run, for one tenant and user.

Everything that a model says about a call is checked here; what the principal may do is fixed at construction and no
argument can widen it. Approval is asked for by risk; whether it was given is the graph's and the runner's matter.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from app.services.tools.bounded import BoundedTool
from app.services.tools.schema import argument_problems
from app.services.tools.tool import Tool, ToolCall
from graphs.context import Trace
from graphs.errors import Invalid, PilothouseError, ToolRefused, ToolRetry
from graphs.taint import Policy, Reading, ordinary, rule
from graphs.types import Ruling, ToolProposal, ToolResult, ToolSpec


class Picker(Protocol):
    async def rank(self, question: str, tools: Iterable[Tool]) -> tuple[tuple[ToolSpec, float], ...]: ...


class ScopedToolbox:
    """Checks and runs the calls of one run. A tool that comes without bounds gets the usual ones.

    `turned_away` hears of each call that never reached a tool, with the tool's name if there is one of that name.
    """

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        tenant_id: str,
        user_id: str,
        run_id: str,
        trace: Trace,
        picker: Picker | None = None,
        policy: Policy = ordinary,
        turned_away: Callable[[str | None], None] = lambda _name: None,
    ) -> None:
        bounded = (tool if isinstance(tool, BoundedTool) else BoundedTool(tool) for tool in tools)
        self._tools = {tool.spec.name: tool for tool in bounded}
        self._tenant_id, self._user_id, self._run_id = tenant_id, user_id, run_id
        self._trace = trace
        self._picker = picker
        self._policy = policy
        self._turned_away = turned_away

    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self._tools.values())

    async def suggest(self, question: str) -> tuple[tuple[ToolSpec, float], ...]:
        if self._picker is None:
            return ()
        return await self._picker.rank(question, self._tools.values())

    def ruling(self, proposal: ToolProposal, read: Reading) -> Ruling:
        tool = self._tools.get(proposal.name)
        if tool is None:
            return Ruling("deny", "destructive", ("there is no such tool here",))
        return rule(tool.spec, proposal, read, self._policy)

    def refusal(self, proposal: ToolProposal) -> ToolResult | None:
        tool = self._tools.get(proposal.name)
        if tool is None:
            granted = ", ".join(self._tools) or "none"
            return _result(
                proposal, "refused", f"there is no tool {proposal.name[:64]!r} here; the tools are: {granted}"
            )
        problems = argument_problems(tool.spec, proposal.arguments)
        if problems:
            return _result(proposal, "retry", "the arguments do not fit: " + "; ".join(problems))
        return None

    async def run(self, proposal: ToolProposal) -> ToolResult:
        with self._trace.span(
            proposal.name, "tool", call_id=proposal.call_id, inputs={"arguments": proposal.arguments}
        ) as span:
            result = self._refused(proposal) or await self._run(self._tools[proposal.name], proposal)
            span.set(outcome=result.status, outputs={"content": result.content})
            return result

    def _refused(self, proposal: ToolProposal) -> ToolResult | None:
        refusal = self.refusal(proposal)
        if refusal is not None:
            self._turned_away(proposal.name if proposal.name in self._tools else None)
        return refusal

    async def _run(self, tool: BoundedTool, proposal: ToolProposal) -> ToolResult:
        call = ToolCall(
            arguments=proposal.arguments,
            tenant_id=self._tenant_id,
            user_id=self._user_id,
            run_id=self._run_id,
            idempotency_key=f"{self._run_id}:{proposal.call_id}",
        )
        try:
            output = await tool.run(call)
        except (ToolRetry, Invalid) as error:
            return _result(proposal, "retry", str(error))
        except (ToolRefused, PilothouseError) as error:
            return _result(proposal, "refused", str(error))
        return ToolResult(proposal.call_id, proposal.name, "ok", output.content, output.passages, output.index_version)


def _result(proposal: ToolProposal, status: Any, content: str) -> ToolResult:
    return ToolResult(proposal.call_id, proposal.name, status, content)
