"""What every toolbox does, whatever is in it: tools of ours, of langchain-core, or of an MCP server."""

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mcp_types as wire
import pytest
import pytest_asyncio
from langchain_core.tools import StructuredTool, ToolException
from mcp import MCPError
from mcp.server.lowlevel import Server

from app.services.store.store import Store
from app.services.tools.langchain import LangChainTool
from app.services.tools.memory import MemoryToolbox
from app.services.tools.registry import Registry
from app.services.tools.tool import Tool, ToolCall, ToolOutput
from app.services.tools.toolbox import ScopedToolbox
from app.telemetry.spans import RunTrace
from graphs.context import Toolbox
from graphs.errors import ToolRefused, ToolRetry
from graphs.taint import Reading
from graphs.types import ToolProposal, ToolSpec
from tests.services.tools.shed import accept, box, served, shed

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one far server for all

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


@dataclass(frozen=True)
class Kit:
    """A toolbox with the two tools, and the names that they have there."""

    toolbox: Toolbox
    echo: ToolSpec = ECHO
    send: ToolSpec = SEND

    def call(self, name: str = "echo", **arguments: Any) -> ToolProposal:
        known = {"echo": self.echo.name, "send": self.send.name}
        return ToolProposal("call-1", known.get(name, name), arguments)


class Repeater:
    examples = ()

    def __init__(self, spec: ToolSpec) -> None:
        self.spec = spec

    async def run(self, call: ToolCall) -> ToolOutput:
        return repeat(call.arguments)


def langchain(spec: ToolSpec) -> LangChainTool:
    def function(**arguments: Any) -> str:
        try:
            return repeat(arguments).content
        except ToolRetry as error:
            raise ToolException(str(error)) from error

    made = StructuredTool.from_function(function, name="any", description=spec.description, args_schema=SHAPE)
    return LangChainTool(spec.name, made, spec.risk)


def remote() -> Server[Any]:
    async def listed(*_: Any) -> wire.ListToolsResult:
        tools = [wire.Tool(name=spec.name, description=spec.description, input_schema=SHAPE) for spec in (ECHO, SEND)]
        return wire.ListToolsResult(tools=tools)

    async def called(_: Any, asked: wire.CallToolRequestParams) -> wire.CallToolResult:
        try:
            content = repeat(asked.arguments or {}).content
        except ToolRetry as error:
            return wire.CallToolResult(content=[wire.TextContent(text=str(error))], is_error=True)
        except ToolRefused as error:
            raise MCPError(wire.INTERNAL_ERROR, str(error)) from error
        return wire.CallToolResult(content=[wire.TextContent(text=content)])

    return Server("far", on_list_tools=listed, on_call_tool=called)


def scoped(*tools: Tool) -> Kit:
    return Kit(ScopedToolbox(tools, tenant_id="t", user_id="u", run_id="r", trace=RunTrace("r")))


def ours(_: Registry) -> Kit:
    return scoped(Repeater(ECHO), Repeater(SEND))


def langchains(_: Registry) -> Kit:
    return scoped(langchain(ECHO), langchain(SEND))


def memory(_: Registry) -> Kit:
    return Kit(MemoryToolbox([(ECHO, repeat), (SEND, repeat)]))


def mcp(far: Registry) -> Kit:
    return Kit(box(far), replace(ECHO, name="far__echo"), replace(SEND, name="far__send"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('far') / 'pilothouse.db'}")
    tools = {"echo": {"risk": ECHO.risk}, "send": {"risk": SEND.risk}}
    async with served(remote()) as url, shed(store, far={"url": url, "tools": tools}) as registry:
        await accept(registry, "far__echo", "far__send")
        yield registry
    await store.close()


@pytest.fixture(params=[ours, langchains, memory, mcp])
def kit(request: pytest.FixtureRequest, far: Registry) -> Kit:
    make: Callable[[Registry], Kit] = request.param
    return make(far)


async def test_the_granted_tools_are_listed_in_order(kit: Kit) -> None:
    assert kit.toolbox.specs() == (kit.echo, kit.send)


async def test_only_what_writes_or_leaves_needs_an_approval(kit: Kit) -> None:
    assert kit.toolbox.ruling(kit.call("echo", word="a"), Reading()).then == "allow"
    assert kit.toolbox.ruling(kit.call("send", word="a"), Reading()).then == "ask"
    assert kit.toolbox.ruling(kit.call("unknown"), Reading()).then == "deny"


async def test_a_well_formed_call_runs(kit: Kit) -> None:
    proposal = kit.call(word="a", times=2)
    assert kit.toolbox.refusal(proposal) is None
    result = await kit.toolbox.run(proposal)
    assert (result.call_id, result.name, result.status, result.content) == ("call-1", kit.echo.name, "ok", "a a")


@pytest.mark.parametrize("name", ["unknown", "", "ECHO", "far__ECHO", "echo ", "x" * 10_000])
async def test_a07_a_tool_that_is_not_granted_is_refused(kit: Kit, name: str) -> None:
    refusal = kit.toolbox.refusal(kit.call(name, word="a"))
    assert refusal is not None
    assert refusal.status == "refused"
    assert len(refusal.content) < 500
    assert await kit.toolbox.run(kit.call(name, word="a")) == refusal


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
async def test_t04_ill_formed_arguments_can_be_mended_and_never_run(kit: Kit, arguments: dict[str, Any]) -> None:
    proposal = ToolProposal("call-1", kit.echo.name, arguments)
    refusal = kit.toolbox.refusal(proposal)
    assert refusal is not None
    assert refusal.status == "retry"
    assert refusal.content
    assert await kit.toolbox.run(proposal) == refusal


async def test_what_a_tool_says_of_its_failure_reaches_the_model(kit: Kit) -> None:
    mended = await kit.toolbox.run(ToolProposal("a", kit.echo.name, {"word": "mend"}))
    final = await kit.toolbox.run(ToolProposal("b", kit.echo.name, {"word": "never"}))
    assert (mended.status, mended.content) == ("retry", "another word, please")
    assert (final.status, "not this word" in final.content) == ("refused", True)


async def test_a_toolbox_that_cannot_tell_suggests_nothing(kit: Kit) -> None:
    assert await kit.toolbox.suggest("say hello twice") == ()
