"""What an operator switches off stops, wherever it runs and whoever decides on it."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from app.config.schema import AlertConfig
from app.records import Payer, RunRequest
from app.services.gateway.scripted import Say
from app.services.quota.refusals import SwitchedOff
from app.services.retrieval.embedder import MiniLmEmbedder
from app.watch import open_watch
from graphs.errors import PilothouseError
from graphs.types import ToolProposal
from tests.app.lite import ANN, EVE, Lite, lite

# As `pilothouse switch off` does it: another process, which shares nothing but the database.
SWITCH_OFF = """
import asyncio, sys
from app.records import Actor
from app.services.store.store import Store
from app.services.switches.switches import Switches

async def main():
    store = await Store.open(sys.argv[1])
    await Switches(store.database).turn_off(sys.argv[2], sys.argv[3], "it loops", Actor("default", "operator"))
    await store.close()

asyncio.run(main())
"""
TICKET = Say(tool_calls=(ToolProposal("x", "create_ticket", {"title": "Printer", "body": "It is broken."}),))


def endless() -> Say:
    """An answer whose second piece never comes."""
    return Say(pieces=("round ", "and round "), wait_between=asyncio.Event())


async def ended(bench: Lite, run_id: str, who: Payer) -> tuple[str, str]:
    """Status and error code of a run, once it has ended."""
    principal = ANN if who.tenant_id == "acme" else EVE
    async with asyncio.timeout(60):
        while (card := await bench.runner.card(principal, run_id)).status == "running":
            await asyncio.sleep(0.01)
    return card.status, card.error.code if card.error else ""


async def test_asi10_a_switch_of_another_process_stops_a_running_loop_within_two_seconds(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    async with (
        lite(tmp_path, lambda _: endless(), embedder) as bench,
        open_watch(bench.store.database, AlertConfig()) as watch,
    ):
        watch.stops(bench.runner.stop)
        loops = await bench.runner.start(ANN, RunRequest("go on for ever"))
        other = await bench.runner.start(EVE, RunRequest("go on for ever"))
        url = f"sqlite+aiosqlite:///{tmp_path / 'lite.db'}"
        operator = await asyncio.create_subprocess_exec(sys.executable, "-c", SWITCH_OFF, url, "tenant", "acme")
        assert await operator.wait() == 0
        since = time.monotonic()
        assert await ended(bench, loops, Payer("acme", "ann")) == ("failed", "switched_off")
        assert time.monotonic() - since < 5  # two on a machine of its own
        assert (await bench.runner.card(EVE, other)).status == "running"


async def test_a_stopped_run_is_written_down_and_its_readers_are_told(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    async with lite(tmp_path, lambda _: endless(), embedder) as bench:
        run_id = await bench.runner.start(ANN, RunRequest("go on"))
        reading = asyncio.create_task(anext_of_type(bench, run_id, "run.failed"))
        assert bench.runner.stop(lambda payer: payer.key_id == "k1", SwitchedOff("this key is switched off")) == 1
        async with asyncio.timeout(60):
            error = await reading
        assert (error["kind"], error["code"]) == ("denied", "switched_off")
        assert (await bench.store.runs.get(run_id, "acme", "ann")).status == "failed"
        assert bench.runner.in_flight == 0


async def anext_of_type(bench: Lite, run_id: str, type_: str) -> dict[str, str]:
    async for event in bench.runner.events(ANN, run_id):
        if event.type == type_:
            return dict(event.data["error"])
    raise AssertionError(f"no {type_}")


async def test_a_run_that_slipped_in_beside_the_switch_is_stopped_too(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    asked = 0

    def barred(payer: Payer) -> PilothouseError | None:
        nonlocal asked
        asked += 1
        return SwitchedOff("this tenant is switched off")

    async with lite(tmp_path, lambda _: endless(), embedder, barred=barred) as bench:
        run_id = await bench.runner.start(ANN, RunRequest("go on"))
        assert await ended(bench, run_id, Payer("acme", "ann")) == ("failed", "switched_off")
        assert asked == 1


async def test_what_waits_for_a_person_acts_only_when_it_is_on_again(tmp_path: Path, embedder: MiniLmEmbedder) -> None:
    off: set[str] = set()

    def barred(payer: Payer) -> PilothouseError | None:
        return SwitchedOff("this tenant is switched off") if payer.tenant_id in off else None

    async with lite(tmp_path, [TICKET, "Done."], embedder, barred=barred) as bench:
        answer = await bench.ask("open a ticket", mode="agent")
        (waiting,) = (await bench.store.approvals.list("acme")).items
        off.add("acme")
        with pytest.raises(SwitchedOff):
            await bench.runner.decide(ANN, waiting.approval_id, "approve")
        await bench.runner.go_on()
        assert (await bench.runner.card(ANN, answer.run_id)).status == "waiting"
        off.clear()
        await bench.runner.decide(ANN, waiting.approval_id, "approve")
        assert (await ended(bench, answer.run_id, Payer("acme", "ann")))[0] == "completed"
        assert len((await bench.store.tickets.list("acme")).items) == 1
