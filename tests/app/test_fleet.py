"""Several processes and one run: one drives it, the others read it, cancel it, inherit it."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.fleet import DELAYED, Fleet
from app.records import RunEvent, RunRequest
from app.services.gateway.scripted import Say, Script
from app.services.quota.committer import Committer
from app.services.quota.ledger import Ledger
from app.services.quota.life import DEAD_AFTER_S
from app.services.relay.relay import EventRelay
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.store.store import Store
from graphs.errors import Missing
from graphs.types import ToolProposal
from tests.app.lite import ANN, EVE, Lite, lite
from tests.redis_server import RedisServer, redis_server

TICKET = Say(tool_calls=(ToolProposal("x", "create_ticket", {"title": "Printer", "body": "It is broken."}),))


@dataclass
class Rolled:
    """A process by name, on a list that the test keeps."""

    process_id: str
    names: set[str]

    async def living(self) -> Collection[str]:
        return set(self.names)


@dataclass
class Processes:
    """Opens benches on one store, as processes of these names."""

    home: Path
    embedder: MiniLmEmbedder
    stack: AsyncExitStack
    names: set[str]
    redis: Redis | None = None

    async def open(self, name: str, script: Script, *, grace_s: float = 60) -> Lite:
        self.names.add(name)

        def fleet(store: Store) -> Fleet:
            relay = None if self.redis is None else EventRelay(self.redis)
            return Fleet(store, Rolled(name, self.names), relay, bound_s=60, grace_s=grace_s)

        bench = lite(self.home, script, self.embedder, reattach_grace_s=grace_s, fleet=fleet)
        return await self.stack.enter_async_context(bench)


@pytest.fixture
async def processes(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Processes]:
    async with AsyncExitStack() as stack:
        yield Processes(tmp_path, embedder, stack, set())


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("r")) as up:
        yield up


@pytest.fixture
async def relayed(processes: Processes, server: RedisServer) -> Processes:
    processes.redis = await processes.stack.enter_async_context(Redis.from_url(server.url, socket_timeout=2))
    return processes


def slow(gate: asyncio.Event) -> Say:
    return Say(pieces=("one ", "two ", "three"), wait_between=gate)


async def until(holds: Callable[[RunEvent], bool], bench: Lite, run_id: str, after: int = 0) -> RunEvent:
    async with asyncio.timeout(30), aclosing(bench.runner.events(ANN, run_id, after)) as events:
        async for event in events:
            if holds(event):
                return event
    raise AssertionError("the run ended before")


def is_said(event: RunEvent) -> bool:
    return event.type == "message.delta"


async def test_k03_a_living_process_keeps_its_runs_and_a_dead_one_is_succeeded(processes: Processes) -> None:
    gate = asyncio.Event()
    first, second = await processes.open("a", [slow(gate)]), await processes.open("b", [])
    run_id = await first.runner.start(ANN, RunRequest("hi"))
    reader = asyncio.create_task(first.runner.attend(ANN, run_id))
    await until(is_said, first, run_id)
    for bench in (first, second):
        await bench.runner.take_over()
    assert (await second.runner.card(ANN, run_id)).status == "running"
    processes.names.remove("a")
    await second.runner.take_over()
    card = await second.runner.card(ANN, run_id)
    assert (card.status, card.error and card.error.code) == ("failed", "interrupted")
    # It only stood still (K04): what it still has to say comes too late.
    gate.set()
    await reader
    assert (await first.runner.card(ANN, run_id)).status == "failed"
    stored = await second.store.runs.events(run_id, "acme")
    assert [event.type for event in stored] == ["run.failed"]


HANG = """
import asyncio, sys
from datetime import UTC, datetime
from app.services.quota.committer import Committer
from app.services.quota.ledger import Ledger
from app.services.store.store import Store

async def main():
    ledger, store = Ledger(Committer(sys.argv[1])), await Store.open(sys.argv[1])
    await ledger.keep_once()
    row = ("dead", "acme", "ann", None, "chat", "hi", "api", "k1", datetime.now(UTC))
    await store.runs.start(*row, process_id=ledger.process_id)
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_k01_only_the_runs_of_a_killed_process_are_found_once_it_gave_no_sign_for_long(store_url: str) -> None:
    command = (sys.executable, "-c", HANG, store_url)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"started\n"
    process.kill()
    await process.wait()
    now = 0.0
    store = await Store.open(store_url)
    ledgers = [Ledger(Committer(store_url), monotonic=lambda: now) for _ in range(2)]
    watching, living = ledgers
    for ledger in ledgers:
        await ledger.keep_once()
    row = ("alive", "acme", "bob", None, "chat", "hi", "api", "k2", store.database.clock())
    await store.runs.start(*row, process_id=living.process_id)
    fleet, waited_s = Fleet(store, watching, bound_s=60, grace_s=15), 0
    while not (found := await fleet.abandoned(())):
        now, waited_s = now + 1.0, waited_s + 1
        for ledger in ledgers:
            await ledger.keep_once()
    assert [record.run_id for record in found] == ["dead"]
    assert DEAD_AFTER_S <= waited_s <= DEAD_AFTER_S + 2
    for ledger in ledgers:
        await ledger.close()
    await store.close()


async def test_a_run_that_could_not_be_stored_is_ended_by_its_own_process(processes: Processes) -> None:
    bench = await processes.open("a", [])
    await bench.store.runs.start("left", "acme", "ann", None, "chat", "hi", "api", "k1", bench.store.database.clock())
    assert await bench.store.leases.take("left", "a")
    await bench.runner.take_over()
    assert (await bench.runner.card(ANN, "left")).status == "failed"


async def test_a_cancel_at_another_process_ends_the_run_where_it_is_driven(processes: Processes) -> None:
    first = await processes.open("a", [slow(asyncio.Event())])
    second = await processes.open("b", [])
    run_id = await first.runner.start(ANN, RunRequest("hi"))
    reader = asyncio.create_task(first.runner.attend(ANN, run_id))
    await until(is_said, first, run_id)
    with pytest.raises(Missing):  # A05
        await second.runner.cancel(EVE, run_id)
    cancelling = asyncio.create_task(second.runner.cancel(ANN, run_id))
    async with asyncio.timeout(30):
        while not cancelling.done():
            await first.runner.heed()
            await asyncio.sleep(0.01)
    await cancelling
    assert (await second.runner.card(ANN, run_id)).status == "cancelled"
    assert first.gateway.provider.closed_early == 1
    assert (await reader).status == "cancelled"


async def test_of_two_processes_that_find_a_decided_run_one_goes_on_with_it(processes: Processes) -> None:
    first, second = await processes.open("a", [TICKET, "Done."]), await processes.open("b", ["Done."])
    answer = await first.ask("open a ticket", mode="agent")
    (waiting,) = (await second.store.approvals.list("acme")).items
    await asyncio.gather(
        second.runner.decide(ANN, waiting.approval_id, "approve"),
        *(bench.runner.go_on() for bench in (first, second, first)),
    )
    for bench in (first, second):
        async with asyncio.timeout(30):
            last = [event async for event in bench.runner.events(ANN, answer.run_id, after=answer.events[-1].number)]
        assert last[-1].type == "run.completed"
    assert len((await first.store.tickets.list("acme")).items) == 1
    assert len(first.gateway.requests) + len(second.gateway.requests) == 2


async def test_a_run_that_went_on_after_its_approval_survives_the_death_of_its_process(processes: Processes) -> None:
    # The process that went on with it stands still before the model has spoken again, and is taken for dead.
    stuck = Say(pieces=("never",), wait=asyncio.Event())
    first, second = await processes.open("a", [TICKET, stuck]), await processes.open("b", ["Done."])
    answer = await first.ask("open a ticket", mode="agent")
    (waiting,) = (await first.store.approvals.list("acme")).items
    await first.runner.decide(ANN, waiting.approval_id, "approve")
    async with asyncio.timeout(30):
        while len(first.gateway.requests) < 2:
            await asyncio.sleep(0.01)
    await second.runner.go_on()
    assert (await second.runner.card(ANN, answer.run_id)).status == "running"
    processes.names.remove("a")
    await second.runner.take_over()
    card = await second.runner.attend(ANN, answer.run_id)
    assert (card.status, card.answer) == ("completed", "Done.")
    assert len((await second.store.tickets.list("acme")).items) == 1


async def test_without_redis_a_reader_elsewhere_is_told_so_and_gets_the_stored_events(processes: Processes) -> None:
    gate = asyncio.Event()
    first = await processes.open("a", [slow(gate)], grace_s=0.6)
    second = await processes.open("b", [], grace_s=0.6)
    run_id = await first.runner.start(ANN, RunRequest("hi"))
    seen = await until(is_said, first, run_id)
    with pytest.raises(Missing):  # A05
        await anext(second.runner.events(EVE, run_id))
    async with asyncio.timeout(30), aclosing(second.runner.events(ANN, run_id, seen.number)) as events:
        told = await anext(events)
        assert (told.number, told.type) == (0, DELAYED)
        await asyncio.sleep(1.5)  # longer than a run goes on that nobody reads
        gate.set()
        rest = [event async for event in events]
    assert [event.number for event in rest] == list(range(seen.number + 1, seen.number + 1 + len(rest)))
    assert rest[-1].type == "run.completed"


async def test_a_run_that_nobody_reads_anywhere_any_more_is_cancelled(processes: Processes) -> None:
    first = await processes.open("a", [slow(asyncio.Event())], grace_s=0.6)
    second = await processes.open("b", [], grace_s=0.6)
    run_id = await first.runner.start(ANN, RunRequest("hi"))
    await until(is_said, first, run_id)
    await until(lambda event: event.type == DELAYED, second, run_id)
    async with asyncio.timeout(30):
        while (await second.runner.card(ANN, run_id)).status == "running":
            await asyncio.sleep(0.05)
    assert (await second.runner.card(ANN, run_id)).status == "cancelled"


async def test_k01_a_reader_follows_a_run_at_another_process_from_where_it_was(relayed: Processes) -> None:
    gate = asyncio.Event()
    first, second = await relayed.open("a", [slow(gate)]), await relayed.open("b", [])
    run_id = await first.runner.start(ANN, RunRequest("hi"))
    seen = await until(is_said, first, run_id)
    async with asyncio.timeout(30), aclosing(second.runner.events(ANN, run_id)) as events:
        live = [await anext(events) for _ in range(seen.number)]
        assert (live[0].type, live[-1]) == ("run.started", seen)
        gate.set()
        rest = [event async for event in events]
    text = "".join(event.data["text"] for event in (*live, *rest) if is_said(event))
    assert (text, rest[-1].type) == ("one two three", "run.completed")
    assert [event.number for event in (*live, *rest)] == list(range(1, len(live) + len(rest) + 1))


async def test_d15_a_redis_that_dies_in_a_run_costs_a_reader_elsewhere_the_live_events_only(
    relayed: Processes, server: RedisServer
) -> None:
    gate = asyncio.Event()
    first, second = await relayed.open("a", [slow(gate)]), await relayed.open("b", [])
    run_id = await first.runner.start(ANN, RunRequest("hi"))
    reader = asyncio.create_task(first.runner.attend(ANN, run_id))
    seen = await until(is_said, first, run_id)
    async with asyncio.timeout(30), aclosing(second.runner.events(ANN, run_id)) as events:
        live = [await anext(events) for _ in range(seen.number)]
        server.kill()
        gate.set()
        rest = [event async for event in events]
    assert (await reader).status == "completed"
    assert [event.type for event in rest].count(DELAYED) == 1
    numbered = [event for event in (*live, *rest) if event.type != DELAYED]
    assert [event.number for event in numbered] == list(range(1, len(numbered) + 1))
    assert numbered[-1].type == "run.completed"
