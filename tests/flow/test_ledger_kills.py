"""A server that is killed while it answers: every answer that a client got whole is in the ledger, once."""

import asyncio
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from app.services.quota.life import DEAD_AFTER_S
from tests.api.served import OWNER_KEY
from tests.api.v1.upstream import upstream
from tests.services.quota.kit import Books
from tests.services.quota.test_life import invariants, pass_by

CLIENTS = 8
COST = 15 * 2 + 4 * 2 + 7 * 8  # the upstream's usage at the prices below; cached tokens cost as the others do
CONFIG = """
providers: {{lab: {{kind: openai, base_url: "{url}"}}}}
models: {{big: {{provider: lab, model: served-1, input_usd_per_mtok: 2, output_usd_per_mtok: 8}}}}
routes: {{default: {{candidates: [big], retries: 0}}}}
tenants: {{acme: {{budget_usd_month: 1}}}}
"""


@dataclass
class Crowd:
    """Clients that ask again and again until their server is gone. `whole` are ids of requests answered to the end."""

    url: str
    key: str
    whole: list[str] = field(default_factory=list)

    async def ask(self, client: httpx.AsyncClient, streamed: bool) -> None:
        body = {
            "model": "big",
            "max_tokens": 50,
            "stream": streamed,
            "messages": [{"role": "user", "content": "say Hi"}],
        }
        while True:
            try:
                async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                    text = (await answer.aread()).decode()
            except httpx.HTTPError:
                return
            assert answer.status_code == 200, text
            if text.rstrip().endswith("data: [DONE]" if streamed else "}"):
                self.whole.append(answer.headers["x-request-id"])

    async def rush(self) -> None:
        headers = {"X-API-Key": self.key}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False) as client:
            await asyncio.gather(*(self.ask(client, number % 2 == 0) for number in range(CLIENTS)))


async def serve(home: Path) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.flow.killed", str(home), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    port = (await asyncio.wait_for(process.stdout.readline(), 100)).decode().strip()
    return process, f"http://127.0.0.1:{port}"


async def new_key(url: str) -> str:
    body = {"tenantId": "acme", "userId": "ann", "scopes": ["chat"], "name": ""}
    async with httpx.AsyncClient(headers={"X-API-Key": OWNER_KEY}, timeout=60, trust_env=False) as owner:
        return str((await owner.post(f"{url}/api/ai/keys", json=body)).json()["key"])


async def test_r04_k01_ledger_rows_equal_requests_served_after_kill_9(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "one.md").write_text("# One\n\nA page.\n")
    whole: list[str] = []
    with upstream() as lab:
        (tmp_path / "pilothouse.yaml").write_text(CONFIG.format(url=lab.url))
        key = ""
        for after in (40, 25):  # answers, then the kill
            process, url = await serve(tmp_path)
            key = key or await new_key(url)
            crowd = Crowd(url, key)
            rushing = asyncio.create_task(crowd.rush())
            while len(crowd.whole) < after and not rushing.done():
                await asyncio.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            await rushing
            await process.wait()
            assert len(crowd.whole) >= after
            whole += crowd.whole
    book = Books(f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}")
    heir = book.open()
    invariants(book)
    await pass_by(book, DEAD_AFTER_S + 2, heir)
    await heir.close()
    rows = book.rows("SELECT request_id, state, outcome, cost_micros FROM ledger")
    assert len({row[0] for row in rows}) == len(rows)
    served = {row[0]: row for row in rows if row[1:3] == ("settled", "ok")}
    assert set(whole) <= set(served)
    assert {row[3] for row in served.values()} == {COST}
    # What else there is was on its way at a kill: settled with its last bytes unsent, or given up with its prompt paid.
    assert len(rows) - len(whole) <= 2 * CLIENTS
    assert {row[1:3] for row in rows} <= {("settled", "ok"), ("abandoned", "failed")}
    assert book.one("SELECT spent_micros, held_micros FROM budgets WHERE scope = 'tenant:acme'") == (
        sum(row[3] for row in rows),
        0,
    )
