"""One MCP server of the configuration: the connection to it, and its tools as it tells them.

The connection is kept: a server that dies or does not answer is left, killed if it is a child, and connected to again
after a pause. What the tools are is asked at each connect, whenever the server says that they have changed, whenever a
call was given up, and now and then; while it is being asked no call is sent.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

import mcp_types as wire
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import ListenNotSupportedError

from app.config.tools import McpServerConfig, McpToolConfig, spaced
from app.services.tools.bounded import raised
from app.services.tools.mcp_content import content_text
from app.services.tools.mcp_http import MAX_EVENT_BYTES, http_client
from app.services.tools.mcp_stdio import stdio
from app.services.tools.schema import usable
from app.services.tools.tool import ToolCall, ToolOutput
from graphs.errors import Invalid, PilothouseError, ToolRefused, ToolRetry, UpstreamError
from graphs.toolhash import definition_hash
from graphs.types import Risk, ToolSpec

log = logging.getLogger("pilothouse.tools")

MAX_DESCRIPTION_CHARS: Final = 8_000
MAX_PAGES: Final = 50
LOOK_S: Final = 60.0  # how often the tools are asked for without a reason; it shows too whether a server is still there
WAIT_S: Final = 5.0  # how long a call waits for a connection that is being made
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 60.0
STEADY_S: Final = 60.0  # a connection that has held for so long has ended a row of failures
LONGEST_CALL_S: Final = 3_600.0  # the deadline of a call is its tool's; the SDK's is that of the connection otherwise
_GONE: Final = frozenset({wire.CONNECTION_CLOSED, wire.INVALID_REQUEST})  # the second: a session the server forgot


@dataclass(frozen=True, slots=True)
class Told:
    """A tool that the file grants, as its server tells it; `fault` says why it is not used."""

    spec: ToolSpec | None
    digest: str = ""
    fault: str = ""


class McpServer:
    """Made by the registry, which runs `keep` behind it."""

    def __init__(
        self,
        name: str,
        config: McpServerConfig,
        environment: Mapping[str, str],
        *,
        jitter: Callable[[], float] = random.random,
        look_s: float = LOOK_S,
    ) -> None:
        self.name = name
        self.told: Mapping[str, Told] = {}
        self.fault = "it has not been connected to yet"
        self._config, self._environment = config, environment
        self._jitter, self._look_s = jitter, look_s
        self._client: Client | None = None
        self._current = asyncio.Event()  # connected, and the tools are those that it has now
        self._woken = asyncio.Event()
        self._tried = asyncio.Event()
        self._closing = False
        self._broken = ""
        self._calls = 0

    async def tried(self) -> None:
        """Wait for the first connection, or for its failure."""
        await self._tried.wait()

    def close(self) -> None:
        """Have `keep` end."""
        self._closing = True
        self._woken.set()

    def tool(self, name: str, spec: ToolSpec) -> "McpTool":
        """A tool of its own, in that definition."""
        return McpTool(self, name, spec)

    async def call(self, tool: str, digest: str, arguments: Mapping[str, Any]) -> wire.CallToolResult:
        """Raises ToolRefused where the tool is not defined any more as it was, ToolRetry, UpstreamError."""
        client = await self._connected()
        told = self.told.get(tool)
        if told is None or told.digest != digest:
            raise ToolRefused(f"{spaced(self.name, tool)} is not defined any more as it was when it was offered")
        self._calls += 1
        try:
            return await client.call_tool(tool, dict(arguments), read_timeout_seconds=LONGEST_CALL_S)
        except MCPError as error:
            raise self._failed(error) from error
        except asyncio.CancelledError:
            # Given up: whoever hangs shows when it is asked for its tools.
            self._look_again()
            raise
        except Exception as error:  # of the SDK, for whatever a server says that is not the protocol
            raise UpstreamError(f"{self.name} gave no answer that can be read ({type(error).__name__})") from error
        finally:
            self._calls -= 1

    async def keep(self) -> None:
        """Until it is closed: be connected, and know what the tools are."""
        loop, failures = asyncio.get_running_loop(), 0
        while not self._closing:
            began = loop.time()
            try:
                await self._connect_and_stay()
            except Exception as error:
                # The loop of a worker: a server that is away, breaks off or talks nonsense must not end it.
                self.fault = _reason(error)
                log.warning("an MCP server is not connected", extra={"server": self.name, "reason": self.fault})
            finally:
                self._client = None
                self._current.clear()
                self._tried.set()
            failures = 1 if loop.time() - began >= STEADY_S else failures + 1
            pause_s = min(FIRST_PAUSE_S * 2 ** (failures - 1), LONGEST_PAUSE_S)
            await self._sleep(pause_s * (1 + 0.2 * self._jitter()))

    async def _connect_and_stay(self) -> None:
        self._broken = ""
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(2 * self._config.connect_timeout_s):
                client = await stack.enter_async_context(await self._opened(stack))
                await self._look(client)
            self._client, self.fault = client, ""
            self._current.set()
            self._tried.set()
            listening = asyncio.create_task(self._listen(client), name=f"listen to {self.name}")
            try:
                await self._stay(client)
            finally:
                listening.cancel()
                await asyncio.wait({listening})

    async def _opened(self, stack: AsyncExitStack) -> Client:
        """The SDK's client over a transport that is not connected yet."""
        config = self._config
        if config.url is None:
            assert config.command is not None, "the configuration was checked"
            environment = {name: self._environment[name] for name in config.env}
            transport: Any = stdio(self.name, config.command, config.args, environment)
        else:
            headers = {header: self._environment[name] for header, name in config.headers_env.items()}
            http = await stack.enter_async_context(http_client(headers, config.connect_timeout_s))
            transport = streamable_http_client(config.url, http_client=http, max_sse_event_size=MAX_EVENT_BYTES)
        return Client(
            transport,
            cache=None,  # a definition is looked at, never remembered
            read_timeout_seconds=config.connect_timeout_s,
            message_handler=self._hear,
            client_info=wire.Implementation(name="pilothouse", version=version("pilothouse")),
        )

    async def _stay(self, client: Client) -> None:
        """Returns when this is closed. Raises what ends the connection."""
        while not self._closing:
            await self._sleep(self._look_s)
            if self._broken:
                raise UpstreamError(self._broken)
            if self._closing or (self._current.is_set() and self._calls):
                continue  # a server that works on a call may answer nothing else meanwhile
            self._current.clear()
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._look(client)
            except TimeoutError as error:
                raise UpstreamError(f"{self.name} does not answer") from error
            self._current.set()

    @property
    def _patience_s(self) -> float:
        """For its list of tools; a server that does one thing at a time ends its calls first."""
        longest_s = max(grant.timeout_s for grant in self._config.tools.values()) if self._calls else 0.0
        return self._config.connect_timeout_s + longest_s

    async def _look(self, client: Client) -> None:
        tools: list[wire.Tool] = []
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            page = await client.list_tools(cursor=cursor)
            tools += page.tools
            if (cursor := page.next_cursor) is None:
                break
        else:
            raise UpstreamError(f"{self.name} lists its tools without an end")
        granted = self._config.tools
        often = Counter(tool.name for tool in tools)
        self.told = {tool.name: self._told(tool, granted[tool.name]) for tool in tools if tool.name in granted} | {
            name: Told(None, fault="its server tells it twice") for name in granted if often[name] > 1
        }

    def _told(self, tool: wire.Tool, grant: McpToolConfig) -> Told:
        description = tool.description or ""
        if len(description) > MAX_DESCRIPTION_CHARS:
            return Told(None, fault=f"its description has more than {MAX_DESCRIPTION_CHARS} characters")
        try:
            parameters = usable(tool.input_schema)
        except Invalid as error:
            return Told(None, fault=error.message)
        spec = ToolSpec(spaced(self.name, tool.name), description, parameters, grant.risk)
        return Told(raised(spec, _claimed(tool.annotations)), definition_hash(spec))

    async def _listen(self, client: Client) -> None:
        """Hear of changes where the protocol has a stream for them; in older ones they come by themselves."""
        try:
            async with client.listen(tools_list_changed=True) as changes:
                async for _ in changes:
                    self._look_again()
        except ListenNotSupportedError:
            return
        except Exception as error:  # of a server that has no such stream, or has ended it: it is looked at now and then
            log.info("an MCP server tells no changes", extra={"server": self.name, "reason": _reason(error)})
            return
        self._look_again()

    async def _hear(self, message: object) -> None:
        if isinstance(message, wire.ToolListChangedNotification):
            self._look_again()

    def _look_again(self) -> None:
        self._current.clear()
        self._woken.set()

    async def _connected(self) -> Client:
        try:
            async with asyncio.timeout(WAIT_S):
                await self._current.wait()
        except TimeoutError as error:
            raise UpstreamError(f"{self.name} is not connected ({self.fault or 'it does not answer'})") from error
        assert self._client is not None, "it is current"
        return self._client

    def _failed(self, error: MCPError) -> PilothouseError | ToolRetry:
        if error.code == wire.INVALID_PARAMS:
            return ToolRetry(error.message)
        if error.code in _GONE:
            self._broken = f"{self.name} has ended the connection"
            self._look_again()
        return UpstreamError(f"{self.name} failed: {error.message[:300]}")

    async def _sleep(self, seconds: float) -> None:
        """Less if something happens."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return
        self._woken.clear()


class McpTool:
    """A tool of a server, as it was defined when it was offered."""

    examples: tuple[str, ...] = ()

    def __init__(self, server: McpServer, tool: str, spec: ToolSpec) -> None:
        self.spec = spec
        self._server, self._tool, self._digest = server, tool, definition_hash(spec)

    async def run(self, call: ToolCall) -> ToolOutput:
        result = await self._server.call(self._tool, self._digest, call.arguments)
        if result.is_error:
            raise ToolRetry(content_text(result))
        return ToolOutput(content_text(result))


def _claimed(hints: wire.ToolAnnotations | None) -> Risk | None:
    """The least risk that a server admits to. What it says in its own favour counts for nothing."""
    if hints is None or hints.read_only_hint:
        return None
    if hints.destructive_hint:
        return "destructive"
    return "write" if hints.read_only_hint is False else None


def _reason(error: BaseException) -> str:
    """What went wrong, of a group the first that is ours to tell."""
    errors: list[BaseException] = [error]
    first = ""
    while errors:
        each = errors.pop(0)
        if isinstance(each, BaseExceptionGroup):
            errors += each.exceptions
        elif isinstance(each, PilothouseError):
            return each.message
        else:
            first = first or type(each).__name__
    return first
