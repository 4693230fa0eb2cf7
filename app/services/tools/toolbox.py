"""The tools granted to one run, for one tenant and user.

Everything that a model says about a call is checked here; what the principal may do is fixed at construction and no
argument can widen it. Approval is asked for by risk; whether it was given is the graph's and the runner's matter.
"""

import asyncio
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from app.services.tools.tool import Tool, ToolCall, ToolOutput
from graphs.context import Trace
from graphs.errors import Invalid, PilothouseError, ToolRefused, ToolRetry
from graphs.taint import Reading
from graphs.types import Risk, Ruling, ToolProposal, ToolResult, ToolSpec

TIMEOUT_S = 30.0
MAX_OUTPUT_CHARS = 16_000
APPROVED_RISKS: frozenset[Risk] = frozenset({"write", "outbound", "destructive"})
_SHOWN_PROBLEMS = 3
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Picker(Protocol):
    async def rank(self, question: str, tools: Iterable[Tool]) -> tuple[tuple[ToolSpec, float], ...]: ...


class ScopedToolbox:
    """Checks, runs, times and bounds the calls of one run."""

    def __init__(
        self,
        tools: Iterable[Tool],
        *,
        tenant_id: str,
        user_id: str,
        run_id: str,
        trace: Trace,
        picker: Picker | None = None,
        needing_approval: Collection[Risk] = APPROVED_RISKS,
        timeout_s: float = TIMEOUT_S,
        max_output_chars: int = MAX_OUTPUT_CHARS,
    ) -> None:
        self._tools = {tool.spec.name: tool for tool in tools}
        self._tenant_id, self._user_id, self._run_id = tenant_id, user_id, run_id
        self._trace = trace
        self._picker = picker
        self._needing_approval = frozenset(needing_approval)
        self._timeout_s = timeout_s
        self._max_output_chars = max_output_chars

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
        return Ruling("ask" if tool.spec.risk in self._needing_approval else "allow", tool.spec.risk)

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
            result = self.refusal(proposal) or await self._run(self._tools[proposal.name], proposal)
            span.set(outcome=result.status, outputs={"content": result.content})
            return result

    async def _run(self, tool: Tool, proposal: ToolProposal) -> ToolResult:
        call = ToolCall(
            arguments=proposal.arguments,
            tenant_id=self._tenant_id,
            user_id=self._user_id,
            run_id=self._run_id,
            idempotency_key=f"{self._run_id}:{proposal.call_id}",
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                output = await tool.run(call)
        except (ToolRetry, Invalid) as error:
            return _result(proposal, "retry", str(error))
        except (ToolRefused, PilothouseError) as error:
            return _result(proposal, "refused", str(error))
        except TimeoutError:
            # Whether it had an effect is not known, so trying again is not for the model to decide.
            return _result(proposal, "refused", f"{tool.spec.name} gave no answer within {self._timeout_s:g} s")
        return self._accepted(proposal, output)

    def _accepted(self, proposal: ToolProposal, output: ToolOutput) -> ToolResult:
        content = output.content
        if len(content) > self._max_output_chars:
            left = len(content) - self._max_output_chars
            content = f"{content[: self._max_output_chars]}\n[cut: {left} more characters]"
        return ToolResult(proposal.call_id, proposal.name, "ok", content, output.passages, output.index_version)


def argument_problems(spec: ToolSpec, arguments: Mapping[str, Any]) -> list[str]:
    """What is wrong with `arguments`, in words for a model; empty when they fit. Unknown keys never fit."""
    validator = Draft202012Validator({"additionalProperties": False, **spec.parameters})
    errors = sorted(validator.iter_errors(dict(arguments)), key=lambda error: list(map(str, error.absolute_path)))
    problems = [_in_words(error) for error in errors[:_SHOWN_PROBLEMS]]
    if not problems:
        problems = [f"{name}: not valid text" for name, value in arguments.items() if not _storable(value)]
    return problems


def _in_words(error: ValidationError) -> str:
    where = "/".join(str(part) for part in error.absolute_path)
    # jsonschema quotes the whole value before the reason; of a long one the reason is enough.
    what = error.message if len(error.message) <= 200 else f"fails {error.validator}: {error.validator_value}"
    return f"{where}: {what}" if where else what


def _storable(value: Any) -> bool:
    """Whether every text in it fits a database: no lone surrogate, no NUL."""
    if isinstance(value, str):
        return _UNSTORABLE.search(value) is None
    if isinstance(value, Mapping):
        return all(_storable(key) and _storable(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_storable(item) for item in value)
    return True


def _result(proposal: ToolProposal, status: Any, content: str) -> ToolResult:
    return ToolResult(proposal.call_id, proposal.name, status, content)
