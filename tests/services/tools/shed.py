"""Registries over real servers and a real store, for tests."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import MCPServer

from app.config.schema import Config
from app.records import Principal
from app.services.store.store import Store
from app.services.tools.registry import Registry, open_registry
from app.services.tools.toolbox import ScopedToolbox
from app.telemetry.spans import RunTrace
from graphs.types import ToolProposal, ToolResult

HERE = Path(__file__).parent
ADA = Principal("acme", "ada", frozenset({"chat"}), "key-1")


def stdio(script: str, *args: str, env: tuple[str, ...] = (), **tools: Mapping[str, Any]) -> dict[str, Any]:
    """A server of the file that is a child process."""
    program = (str(HERE / script), *args)
    return {"command": sys.executable, "args": program, "env": env, "tools": tools, "connect_timeout_s": 30}


@asynccontextmanager
async def served(server: MCPServer | Server[Any], **options: Any) -> AsyncIterator[str]:
    """Over HTTP, in this loop; gives the URL."""
    config = uvicorn.Config(
        server.streamable_http_app(**options), port=0, log_level="error", timeout_graceful_shutdown=1
    )
    runner = uvicorn.Server(config)
    task = asyncio.create_task(runner.serve())
    while not runner.started:
        await asyncio.sleep(0.01)
    port = runner.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        runner.should_exit = True
        await task


@asynccontextmanager
async def shed(
    store: Store, *, tools: Any = None, environment: Mapping[str, str] | None = None, **servers: Any
) -> AsyncIterator[Registry]:
    """The registry of a file with these tools and servers, after its first look at them."""
    config = Config.model_validate({"tools": tools or {}, "mcp_servers": servers})
    async with open_registry(config, store.database, environment=environment or {}) as registry:
        await registry.looked()
        yield registry


async def accept(registry: Registry, *names: str) -> None:
    for name in names:
        await registry.accept(name, ADA.actor)


def box(registry: Registry, who: Principal = ADA, run_id: str = "r1") -> ScopedToolbox:
    """The toolbox of a run of that caller's, without built-ins."""
    return ScopedToolbox(
        registry.offered(who, ()), tenant_id=who.tenant_id, user_id=who.user_id, run_id=run_id, trace=RunTrace(run_id)
    )


async def call(registry: Registry, name: str, call_id: str = "c1", **arguments: Any) -> ToolResult:
    return await box(registry).run(ToolProposal(call_id, name, arguments))


def states(registry: Registry) -> dict[str, str]:
    """Of the tools that are no built-ins."""
    return {entry.name: entry.state for entry in registry.entries() if entry.kind != "builtin"}


async def until(true: Callable[[], Any], timeout_s: float = 30.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not true():
            await asyncio.sleep(0.01)
