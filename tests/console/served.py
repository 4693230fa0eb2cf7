"""API and console over the real stack on a real socket: a scripted chat model, the real extractive one, three pages."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from app import workbench
from app.api.app import create_api
from app.console.app import mount_console
from app.services.gateway.extractive import ExtractiveAnswerer
from app.services.gateway.scripted import Line, Say, ScriptedProvider
from app.services.retrieval.embedder import MiniLmEmbedder
from app.settings import Settings
from graphs.errors import UpstreamTimeout
from graphs.types import ModelRequest, ToolProposal
from tests.console.hostile import ATTACK

OWNER_KEY = "an-owner-key-of-more-than-32-characters"
HANDBOOK = Path(workbench.__file__).with_name("handbook")  # not workbench.PAGES, which another server may have replaced
PAGES = ("concepts-approvals", "concepts-answer-card", "concepts-tenants-keys")


# Budgets to be looked at; the scripted model is free. No breaker opens because a test let it fail.
CONFIG = """
breaker: {min_calls: 100000}
tenants:
  acme: {budget_usd_month: 50, users: {ann: {budget_usd_month: 12, degrade: [{at: 0.5, cached: true}]}}}
  umbrella: {budget_usd_month: 8}
"""


@dataclass
class Script:
    """Answers by a word in the question: hold, ticket, fail, refuse, hostile; anything else gets a greeting."""

    gate: asyncio.Event | None = None

    def __call__(self, request: ModelRequest) -> Line:
        asked = next(turn.content for turn in reversed(request.messages) if turn.role == "user")
        if any(turn.role == "tool" for turn in request.messages):
            return "That is settled now."
        if "hold" in asked:
            self.gate = asyncio.Event()
            return Say(pieces=("Half a sentence ", "and the rest."), wait_between=self.gate)
        if "ticket" in asked:
            arguments = {"title": "Rebuild failed", "body": "<b>Look</b> at the log."}
            return Say(tool_calls=(ToolProposal("x", "create_ticket", arguments),))
        if "fail" in asked:
            return Say(pieces=("Half a ",), error=UpstreamTimeout("the model fell silent"))
        if "refuse" in asked:
            return UpstreamTimeout("the model did not answer within 30 s")
        return ATTACK if "hostile" in asked else "Hello from the script."


@dataclass
class Served:
    url: str
    script: Script
    api: FastAPI
    loop: asyncio.AbstractEventLoop
    keys: dict[str, str] = field(default_factory=dict)

    def call(self, coroutine: Any) -> Any:
        """The result of a coroutine of the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def client(self, who: str | None) -> httpx.Client:
        headers = {"X-API-Key": self.keys[who]} if who else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, trust_env=False)


@contextmanager
def served(home: Path, embedder: MiniLmEmbedder) -> Iterator[Served]:
    settings = Settings.offline(home, owner_key=OWNER_KEY, export_traces=False, reattach_grace_s=10)
    script, ready = Script(), threading.Event()
    found: dict[str, Any] = {}
    pages = home / "pages"
    pages.mkdir()
    # The script fails on purpose, and its breaker must not answer for the next test.
    (home / "pilothouse.yaml").write_text(CONFIG)
    for name in PAGES:
        (pages / f"{name}.md").write_bytes((HANDBOOK / f"{name}.md").read_bytes())

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        providers = [ScriptedProvider(script), ExtractiveAnswerer(embedder)]
        models = {provider.info.name: provider for provider in providers}
        async with workbench.open_workbench(settings, providers=models, serving=True) as bench:
            api.state.bench = bench
            async with mount_console(api, bench):
                await bench.until_ready()
                found["loop"] = asyncio.get_running_loop()
                ready.set()
                yield

    api = create_api(settings, lifespan=lifespan)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        api, http="httptools", log_config=None, access_log=False, timeout_graceful_shutdown=2, ws="websockets-sansio"
    )
    server = uvicorn.Server(config)
    full_handbook, workbench.PAGES = workbench.PAGES, pages  # type: ignore[misc]  # three pages are enough here
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    try:
        assert ready.wait(200), "the server did not come up"
        up = Served(f"http://127.0.0.1:{listener.getsockname()[1]}", script, api, found["loop"], {"owner": OWNER_KEY})
        with up.client("owner") as owner:
            for user, scopes in {"ann": ["chat", "approvals"], "bob": ["chat"]}.items():
                made = owner.post(
                    "/api/ai/keys", json={"tenantId": "acme", "userId": user, "scopes": scopes, "name": user}
                )
                up.keys[user] = made.json()["key"]
        yield up
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        workbench.PAGES = full_handbook  # type: ignore[misc]
