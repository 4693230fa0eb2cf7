"""The real stack behind a real socket: uvicorn in a thread, store, library, graphs and tools, a scripted model."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app import workbench
from app.api.app import create_api
from app.main import socket_config
from app.services.gateway.provider import Provider
from app.services.gateway.scripted import Line, Say, ScriptedProvider
from app.settings import Settings
from graphs.errors import UpstreamError
from graphs.types import ModelRequest, ToolProposal

OWNER_KEY = "an-owner-key-of-more-than-32-characters"
PAGES = {"keys": "# Keys\n\nA key is revoked with DELETE.\n", "runs": "# Runs\n\nEvery run leaves a row.\n"}


@dataclass
class Script:
    """Answers by what the question says: `say ...`, `hold`, `ticket`, `call NAME JSON`, `fail` (half-way) or `refuse`
    (at once)."""

    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    requests: list[ModelRequest] = field(default_factory=list)

    def __call__(self, request: ModelRequest) -> Line:
        self.requests.append(request)
        asked = next(turn.content for turn in reversed(request.messages) if turn.role == "user")
        if any(turn.role == "tool" for turn in request.messages):
            return "Done."
        if asked.startswith("call "):
            _, name, arguments = asked.split(" ", 2)
            return Say(tool_calls=(ToolProposal("x", name, json.loads(arguments)),))
        if "hold" in asked:
            gate = self.gates.setdefault(asked.split()[-1], asyncio.Event())
            return Say(pieces=("one ", "two ", "three"), wait_between=gate)
        if "ticket" in asked:
            return Say(tool_calls=(ToolProposal("x", "create_ticket", {"title": "Printer", "body": "Broken."}),))
        if "fail" in asked:
            return Say(pieces=("Half an ",), error=UpstreamError("the model broke off"))
        if "refuse" in asked:
            return UpstreamError("the model is away")
        return asked.partition("say ")[2] or "Hello."


@dataclass
class Served:
    """A server that is up. `client(key)` speaks to it as the holder of that key."""

    url: str
    api: FastAPI
    script: Script
    loop: asyncio.AbstractEventLoop
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def bench(self) -> Any:
        return self.api.state.bench

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 0

    def client(self, who: str | None = None, **options: Any) -> httpx.Client:
        headers = {"X-API-Key": self.keys[who]} if who else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False, **options)

    def release(self, gate: str) -> None:
        """Let a `hold` go on."""
        self.loop.call_soon_threadsafe(lambda: self.script.gates.setdefault(gate, asyncio.Event()).set())

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)


# The script fails on purpose, and its breaker must not answer for the next test.
CONFIG = "breaker: {min_calls: 100000}\n"


@contextmanager
def served(
    home: Path, config: str = CONFIG, more: Sequence[Provider] = (), *, serving: bool = False, **given: Any
) -> Iterator[Served]:
    """`more` are models beside the scripted one. One that is `serving` performs jobs. `given` are settings."""
    settings = Settings.offline(home, owner_key=OWNER_KEY, export_traces=False, reattach_grace_s=10, **given)
    script, ready = Script(), threading.Event()
    found: dict[str, Any] = {}
    pages = home / "pages"
    pages.mkdir()
    (home / "pilothouse.yaml").write_text(config)
    for name, text in PAGES.items():
        (pages / f"{name}.md").write_text(text)

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        models = {provider.info.name: provider for provider in (ScriptedProvider(script), *more)}
        async with workbench.open_workbench(settings, providers=models, serving=serving) as bench:
            await bench.until_ready()
            api.state.bench = bench
            found["loop"] = asyncio.get_running_loop()
            ready.set()
            yield

    api = create_api(settings, lifespan=lifespan)
    listener = socket.create_server(("127.0.0.1", 0))
    config = socket_config(api, settings)
    config.timeout_graceful_shutdown = 2
    server = uvicorn.Server(config)
    full_handbook, workbench.PAGES = workbench.PAGES, pages  # type: ignore[misc]  # two pages are enough here
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    try:
        assert ready.wait(100), "the server did not come up"
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", api, script, found["loop"])
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        workbench.PAGES = full_handbook  # type: ignore[misc]
