"""A run's toolbox where policy lets tools have what the model may not see.

The model writes placeholders, people decide on them, and the tool gets the originals; what it says comes back with the
placeholders in their stead.
"""

from dataclasses import dataclass, replace

from app.config.guards import GuardRules
from graphs.context import RunContext, Toolbox, Withheld
from graphs.taint import Reading
from graphs.types import Ruling, ToolProposal, ToolResult, ToolSpec


@dataclass(frozen=True, slots=True)
class OriginalsToolbox:
    """Implements `graphs.context.Toolbox` over another one."""

    toolbox: Toolbox
    withheld: Withheld

    def specs(self) -> tuple[ToolSpec, ...]:
        return self.toolbox.specs()

    async def suggest(self, question: str) -> tuple[tuple[ToolSpec, float], ...]:
        return await self.toolbox.suggest(question)

    def ruling(self, proposal: ToolProposal, read: Reading) -> Ruling:
        return self.toolbox.ruling(self._whole(proposal), read)

    def refusal(self, proposal: ToolProposal) -> ToolResult | None:
        refused = self.toolbox.refusal(self._whole(proposal))
        return None if refused is None else self._hidden(refused)

    async def run(self, proposal: ToolProposal) -> ToolResult:
        return self._hidden(await self.toolbox.run(self._whole(proposal)))

    def _whole(self, proposal: ToolProposal) -> ToolProposal:
        return replace(proposal, arguments=self.withheld.restored(proposal.arguments))

    def _hidden(self, result: ToolResult) -> ToolResult:
        return replace(result, content=self.withheld.hidden(result.content))


def with_originals(context: RunContext, rules: GuardRules) -> RunContext:
    """The context with such a toolbox, if the tenant's rules say so and anything is withheld at all."""
    withheld = context.guard.withheld
    if rules.tools == "redacted" or withheld is None:
        return context
    return replace(context, toolbox=OriginalsToolbox(context.toolbox, withheld))
