"""Processes with homes of their own that are one installation, and clients of them."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from app.services.keyring import KEY_BYTES, Key
from tests.api.served import OWNER_KEY
from tests.fake_openai import FakeOpenAi, fake_openai
from tests.flow.lab import Lab
from tests.redis_server import redis_server

CONFIG = """
providers: {{lab: {{kind: openai, base_url: "{url}/v1", api_key_env: LAB_API_KEY}}}}
models: {{big: {{provider: lab, model: served-1, input_usd_per_mtok: 2, output_usd_per_mtok: 8}}}}
routes: {{default: {{candidates: [big], retries: 0}}}}
tenants: {{acme: {{}}, narrow: {{concurrent_runs: 2}}, rated: {{requests_per_minute: 4}}}}
limits: {{queue_wait_s: 0.1}}
"""
ENCRYPTION_KEY = Key("fleet", bytes(range(KEY_BYTES)))  # one for all: each would make its own
START_S = 200  # on a crowded machine


@dataclass
class Event:
    number: int
    type: str
    data: dict[str, Any]


@dataclass
class Api:
    """One process, and a client of it as the holder of whichever key."""

    process: asyncio.subprocess.Process
    url: str
    keys: dict[str, str]

    def client(self, who: str = "ann") -> httpx.AsyncClient:
        headers = {"X-API-Key": self.keys[who]}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False)

    async def events(self, run_id: str, after: int = 0, who: str = "ann") -> AsyncGenerator[Event, None]:
        headers = {"Last-Event-ID": str(after)}
        path = f"/api/ai/runs/{run_id}/events"
        async with self.client(who) as client, client.stream("GET", path, headers=headers) as answer:
            assert answer.status_code == 200
            async for found in _events(answer):
                yield found

    @asynccontextmanager
    async def asked(self, message: str, who: str = "ann") -> AsyncIterator[str]:
        """The id of a streamed run that has said its first word; its reader stays until the block ends."""
        async with self.client(who) as client:
            body = {"message": message, "stream": True}
            async with client.stream("POST", "/api/ai/chat", json=body) as answer:
                assert answer.status_code == 200, await answer.aread()
                async with aclosing(_events(answer)) as events:
                    async for found in events:
                        if found.type == "message.delta":
                            break
                    yield answer.headers["x-request-id"]

    async def card(self, run_id: str, who: str = "ann") -> dict[str, Any]:
        async with self.client(who) as client:
            return dict((await client.get(f"/api/ai/runs/{run_id}")).json())

    async def comes_to(self, run_id: str, status: str) -> dict[str, Any]:
        async with asyncio.timeout(40):
            while (card := await self.card(run_id))["status"] != status:
                await asyncio.sleep(0.05)
        return card


async def _events(answer: httpx.Response) -> AsyncGenerator[Event, None]:
    read: dict[str, str] = {}
    async for line in answer.aiter_lines():
        name, _, value = line.partition(": ")
        if line:
            read[name] = value
        elif "event" in read:
            yield Event(int(read.get("id", 0)), read["event"], orjson.loads(read["data"]))
            read = {}


@dataclass
class Fleet:
    """What all processes share, and those that are up: the APIs `a` and `b`, and workers by the key that the model
    server knows them by."""

    root: Path
    lab: Lab
    fake: FakeOpenAi
    environment: Mapping[str, str]
    stack: AsyncExitStack
    keys: dict[str, str] = field(default_factory=lambda: {"owner": OWNER_KEY})
    workers: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    a: Api = field(init=False)
    b: Api = field(init=False)

    async def starting(
        self, name: str, module: str = "process", stderr: int | None = None, **changes: str
    ) -> asyncio.subprocess.Process:
        """A process that is killed at the end, if it is still there; `changes` are to its environment."""
        pages = self.root / name / "pages"
        pages.mkdir(parents=True)
        (pages / "one.md").write_text("# One\n\nA page.\n")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"tests.flow.{module}"),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            env={**self.environment, "PILOTHOUSE_HOME": str(self.root / name), **changes},
        )
        self.stack.push_async_callback(_end, process)
        return process

    async def api(self, name: str) -> Api:
        process = await self.starting(name)
        return Api(process, f"http://127.0.0.1:{await _said(process)}", self.keys)

    async def worker(self, name: str) -> None:
        key = f"sk-{name}"
        process = await self.starting(name, "bench_worker", LAB_API_KEY=key, PILOTHOUSE_JOBS_IN_PROCESS="true")
        assert await _said(process) == "up"
        self.workers[key] = process

    async def admit(self, tenant: str, user: str, *scopes: str) -> None:
        made = {"tenantId": tenant, "userId": user, "scopes": scopes, "name": ""}
        async with self.a.client("owner") as owner:
            self.keys[user] = (await owner.post("/api/ai/keys", json=made)).json()["key"]


@asynccontextmanager
async def fleet(root: Path, lab: Lab, database_url: str, *workers: str, **settings: str) -> AsyncIterator[Fleet]:
    """Two APIs and those workers on a Redis and a model server of their own; `settings` are PILOTHOUSE_*."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(redis_server(root))
        fake = await stack.enter_async_context(fake_openai(lab))
        (root / "pilothouse.yaml").write_text(CONFIG.format(url=fake.url))
        environment = os.environ | {
            "PILOTHOUSE_CONFIG": str(root / "pilothouse.yaml"),
            "PILOTHOUSE_DATABASE_URL": database_url,
            "PILOTHOUSE_REDIS_URL": redis.url,
            "PILOTHOUSE_OWNER_KEY": OWNER_KEY,
            "PILOTHOUSE_ENCRYPTION_KEYS": ENCRYPTION_KEY.written(),
            "PILOTHOUSE_EXPORT_TRACES": "false",
            "LAB_API_KEY": "sk-test",
        }
        environment |= {f"PILOTHOUSE_{name.upper()}": value for name, value in settings.items()}
        made = Fleet(root, lab, fake, environment, stack)
        working = asyncio.gather(*map(made.worker, workers))
        made.a, made.b = await asyncio.gather(made.api("a"), made.api("b"))
        await working
        yield made


async def _said(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await asyncio.wait_for(process.stdout.readline(), START_S)).decode().strip()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()
