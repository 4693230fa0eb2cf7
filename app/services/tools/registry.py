"""All tools of the process, and which of them a run is offered.

A tool of langchain-core or of an MCP server is offered only in a definition that somebody has answered for: the file by
its pin, or an operator who accepted it. One that was never seen before, or has changed, is off until then. What comes
with the product came with its release.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from app.config.schema import Config
from app.config.tools import ToolGrant, spaced
from app.records import Actor, Principal
from app.services.breaker import State
from app.services.database import Database
from app.services.tools.acceptances import REFRESH_S, Acceptances, Accepted
from app.services.tools.bounded import BoundedTool, Bounds, Observe, raised
from app.services.tools.builtins import BUILTINS, grants
from app.services.tools.calls import CallBook
from app.services.tools.lane import Lane
from app.services.tools.tool import Tool
from graphs.errors import Conflict, Missing
from graphs.toolhash import definition_hash
from graphs.types import ToolSpec

if TYPE_CHECKING:
    from app.services.tools.langchain import LangChainTool
    from app.services.tools.mcp_server import McpServer

log = logging.getLogger("pilothouse.tools")

CLOSE_S: Final = 10.0

ToolState = Literal["on", "off", "new", "changed", "absent"]
"""`off` by the file; `new` and `changed` until they are accepted; `absent` while its server tells none that is used."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A tool as an operator sees it. `digest` is empty, and `spec` None, while nobody can say what it is."""

    name: str
    kind: Literal["builtin", "langchain", "mcp"]
    state: ToolState
    grant: ToolGrant
    spec: ToolSpec | None
    digest: str = ""
    why: str = ""
    accepted: Accepted | None = None


@dataclass(frozen=True, slots=True)
class _Found:
    """A tool of the configuration with what is known of it now; `tool` is None while there is nothing to run."""

    name: str
    kind: Literal["builtin", "langchain", "mcp"]
    grant: ToolGrant
    tool: Tool | None
    spec: ToolSpec | None
    digest: str = ""
    why: str = ""
    repeatable: bool = False


class Registry:
    """Made by `open_registry`. `turned_away` is for the toolboxes of runs: it hears of calls that reached no tool."""

    def __init__(
        self,
        config: Config,
        acceptances: Acceptances,
        book: CallBook,
        *,
        environment: Mapping[str, str],
        observe: Observe,
        turned_away: Callable[[str | None], None],
    ) -> None:
        """Raises Invalid for a tool of langchain-core that cannot be made."""
        self._config, self._acceptances, self._book, self._observe = config, acceptances, book, observe
        self._langchain = _langchain(config)
        self.servers = _servers(config, environment)
        self.turned_away = turned_away
        self._lanes: dict[str, Lane] = {}
        self._told: set[tuple[str, str]] = set()

    def offered(self, who: Principal, own: Iterable[Tool]) -> tuple[BoundedTool, ...]:
        """What a run of this caller may use. `own` are the built-in tools, made for the run."""
        mine = {tool.spec.name: tool for tool in own}
        return tuple(
            self._bounded(found, found.tool)
            for found in self._found(mine)
            if found.tool is not None
            and found.grant.is_for(who.tenant_id)
            and who.may(found.grant.scope)
            and self._state(found) == "on"
        )

    def entries(self) -> list[Entry]:
        """Every tool that the file or the product names, and how it stands."""
        return [
            Entry(
                found.name,
                found.kind,
                self._state(found),
                found.grant,
                found.spec,
                found.digest,
                found.why,
                self._acceptances.of(found.name),
            )
            for found in self._found({})
        ]

    @property
    def names(self) -> tuple[str, ...]:
        """Of all tools that there could be: a closed set."""
        return tuple(found.name for found in self._found({}))

    def breakers(self, now: float) -> dict[str, State]:
        """Of the tools that this process has called, `now` in monotonic seconds."""
        return {name: lane.breaker.state(now) for name, lane in self._lanes.items()}

    async def accept(self, name: str, by: Actor, digest: str = "") -> Entry:
        """Answer for the definition that the tool has now; `digest` is what was looked at, where it was.

        Raises Missing for a tool that cannot be seen, Conflict where another definition is there by now.
        """
        entry = next((each for each in self.entries() if each.name == name), None)
        if entry is None or entry.spec is None:
            raise Missing(f"there is no tool {name!r} to accept" + (f": {entry.why}" if entry and entry.why else ""))
        if entry.kind == "builtin":
            raise Conflict("a built-in tool comes with its release; nobody has to accept it")
        if digest and digest != entry.digest:
            raise Conflict(f"the definition is {entry.digest} by now, not the one that was named")
        await self._acceptances.accept(entry.spec, by)
        return next(each for each in self.entries() if each.name == name)

    async def looked(self) -> None:
        """Wait until each server has been connected to or has failed once."""
        await asyncio.gather(*(server.tried() for server in self.servers.values()))
        self._tell()

    async def keep(self) -> None:
        """For ever: see what is accepted elsewhere, and say what waits for somebody to accept it."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self._acceptances.refresh()
            except Exception:
                # The loop of a worker: a database that is away must not end it.
                log.exception("the accepted tools could not be read; the last view holds")
            self._tell()

    def _found(self, own: Mapping[str, Tool]) -> Iterator[_Found]:
        for name, grant in grants(self._config.tools).items():
            spec = raised(BUILTINS[name].spec, grant.risk)
            digest = definition_hash(spec)
            yield _Found(name, "builtin", grant, own.get(name), spec, digest, repeatable=BUILTINS[name].repeatable)
        for name, config in self._config.tools.items():
            if config.kind != "langchain":
                continue
            if (tool := self._langchain.get(name)) is None:
                yield _Found(name, "langchain", config, None, None)
            else:
                digest = definition_hash(tool.spec)
                yield _Found(name, "langchain", config, tool, tool.spec, digest, repeatable=tool.repeatable)
        for server in self.servers.values():
            yield from self._found_at(server)

    def _found_at(self, server: "McpServer") -> Iterator[_Found]:
        for remote, grant in self._config.mcp_servers[server.name].tools.items():
            name, told = spaced(server.name, remote), server.told.get(remote)
            if told is None or told.spec is None:
                why = told.fault if told else server.fault or "its server does not have it"
                yield _Found(name, "mcp", grant, None, None, why=why)
            else:
                tool = server.tool(remote, told.spec)
                yield _Found(name, "mcp", grant, tool, told.spec, told.digest)

    def _state(self, found: _Found) -> ToolState:
        if not found.grant.enabled:
            return "off"
        if found.spec is None:
            return "absent"
        if found.grant.pin is not None:
            return "on" if found.grant.pin == found.digest else "changed"
        if found.kind == "builtin":
            return "on"
        accepted = self._acceptances.of(found.name)
        if accepted is None:
            return "new"
        return "on" if accepted.digest == found.digest else "changed"

    def _bounded(self, found: _Found, tool: Tool) -> BoundedTool:
        lane = self._lanes.get(found.name)
        if lane is None:
            lane = self._lanes[found.name] = Lane(found.name, found.grant.max_concurrent)
        return BoundedTool(
            tool,
            Bounds.of(found.grant),
            risk=found.grant.risk,
            lane=lane,
            book=self._book,
            repeatable=found.repeatable,
            observe=self._observe,
        )

    def _tell(self) -> None:
        """Say once of each definition that it waits."""
        for entry in self.entries():
            if entry.state in {"new", "changed"} and (entry.name, entry.digest) not in self._told:
                self._told.add((entry.name, entry.digest))
                log.warning(
                    "a tool is off until its definition is accepted: pilothouse tools accept %s",
                    entry.name,
                    extra={"tool": entry.name, "state": entry.state, "definition": entry.digest},
                )


def _langchain(config: Config) -> "dict[str, LangChainTool]":
    named = {name: tool for name, tool in config.tools.items() if tool.kind == "langchain" and tool.enabled}
    if not named:
        return {}
    from app.services.tools.langchain import LangChainTool  # the CLI waits a second for it

    return {name: LangChainTool.configured(name, tool) for name, tool in named.items()}


def _servers(config: Config, environment: Mapping[str, str]) -> "dict[str, McpServer]":
    if not config.mcp_servers:
        return {}
    from app.services.tools.mcp_server import McpServer  # the SDK takes a second or two to import

    return {name: McpServer(name, server, environment) for name, server in config.mcp_servers.items()}


@asynccontextmanager
async def open_registry(
    config: Config,
    database: Database,
    *,
    environment: Mapping[str, str] = os.environ,
    observe: Observe = lambda _name, _outcome, _took_s: None,
    turned_away: Callable[[str | None], None] = lambda _name: None,
) -> AsyncIterator[Registry]:
    """Connect to the servers, in the background, and leave none of their processes behind.

    Raises Invalid for a tool that cannot be made, StoreUnavailable.
    """
    acceptances = Acceptances(database)
    await acceptances.refresh()
    book = CallBook(database)
    registry = Registry(config, acceptances, book, environment=environment, observe=observe, turned_away=turned_away)
    connecting = [
        asyncio.create_task(server.keep(), name=f"MCP server {name}") for name, server in registry.servers.items()
    ]
    keeping = [
        asyncio.create_task(registry.keep(), name="accepted tools"),
        asyncio.create_task(book.keep(), name="forget tool calls"),
    ]
    try:
        yield registry
    finally:
        for task in keeping:
            task.cancel()
        for server in registry.servers.values():
            server.close()
        await asyncio.wait(keeping)
        if connecting:
            _, late = await asyncio.wait(connecting, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
