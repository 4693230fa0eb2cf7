"""What every toolbox does, whatever is in it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from app.services.tools.memory import MemoryToolbox
from app.services.tools.tool import ToolCall, ToolOutput
from app.services.tools.toolbox import ScopedToolbox
from app.telemetry.spans import RunTrace
from graphs.context import Toolbox
from graphs.errors import ToolRefused, ToolRetry
from graphs.taint import Reading
from graphs.types import ToolProposal, ToolSpec

SHAPE = {
    "type": "object",
    "properties": {"word": {"type": "string", "maxLength": 20}, "times": {"type": "integer", "minimum": 1}},
    "required": ["word"],
}
ECHO = ToolSpec("echo", "Say a word again.", SHAPE)
SEND = ToolSpec("send", "Send a word away.", SHAPE, risk="outbound")


def repeat(arguments: Mapping[str, Any]) -> ToolOutput:
    if arguments["word"] == "mend":
        raise ToolRetry("another word, please")
    if arguments["word"] == "never":
        raise ToolRefused("not this word")
    return ToolOutput(" ".join([arguments["word"]] * arguments.get("times", 1)))


class Repeater:
    examples = ()

    def __init__(self, spec: ToolSpec) -> None:
        self.spec = spec

    async def run(self, call: ToolCall) -> ToolOutput:
        return repeat(call.arguments)


def scoped() -> Toolbox:
    tools = [Repeater(ECHO), Repeater(SEND)]
    return ScopedToolbox(tools, tenant_id="t", user_id="u", run_id="r", trace=RunTrace("r"))


def memory() -> Toolbox:
    return MemoryToolbox([(ECHO, repeat), (SEND, repeat)])


@pytest.fixture(params=[scoped, memory])
def toolbox(request: pytest.FixtureRequest) -> Toolbox:
    make: Callable[[], Toolbox] = request.param
    return make()


def call(name: str = "echo", **arguments: Any) -> ToolProposal:
    return ToolProposal("call-1", name, arguments)


def test_the_granted_tools_are_listed_in_order(toolbox: Toolbox) -> None:
    assert toolbox.specs() == (ECHO, SEND)


def test_only_what_writes_or_leaves_needs_an_approval(toolbox: Toolbox) -> None:
    assert toolbox.ruling(call("echo", word="a"), Reading()).then == "allow"
    assert toolbox.ruling(call("send", word="a"), Reading()).then == "ask"
    assert toolbox.ruling(call("unknown"), Reading()).then == "deny"


async def test_a_well_formed_call_runs(toolbox: Toolbox) -> None:
    assert toolbox.refusal(call(word="a", times=2)) is None
    result = await toolbox.run(call(word="a", times=2))
    assert (result.call_id, result.name, result.status, result.content) == ("call-1", "echo", "ok", "a a")


@pytest.mark.parametrize("name", ["unknown", "", "ECHO", "x" * 10_000])
async def test_a_tool_that_is_not_granted_is_refused(toolbox: Toolbox, name: str) -> None:
    refusal = toolbox.refusal(call(name, word="a"))
    assert refusal is not None
    assert refusal.status == "refused"
    assert len(refusal.content) < 500
    assert await toolbox.run(call(name, word="a")) == refusal


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"word": 3},
        {"word": None},
        {"word": "a", "times": 0},
        {"word": "a", "times": "2"},
        {"word": "a" * 21},
        {"word": "a", "tenant_id": "other"},
        {"Word": "a"},
        {"word": "lone \ud800"},
        {"word": "nul \x00"},
    ],
)
async def test_ill_formed_arguments_can_be_mended_and_never_run(toolbox: Toolbox, arguments: dict[str, Any]) -> None:
    proposal = ToolProposal("call-1", "echo", arguments)
    refusal = toolbox.refusal(proposal)
    assert refusal is not None
    assert refusal.status == "retry"
    assert refusal.content
    assert await toolbox.run(proposal) == refusal


async def test_what_a_tool_says_of_its_failure_reaches_the_model(toolbox: Toolbox) -> None:
    mended = await toolbox.run(ToolProposal("a", "echo", {"word": "mend"}))
    final = await toolbox.run(ToolProposal("b", "echo", {"word": "never"}))
    assert (mended.status, mended.content) == ("retry", "another word, please")
    assert (final.status, final.content) == ("refused", "not this word")


async def test_a_toolbox_that_cannot_tell_suggests_nothing(toolbox: Toolbox) -> None:
    assert await toolbox.suggest("say hello twice") == ()
