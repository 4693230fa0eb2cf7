"""What agent runs have come to, with the store on either database: found by any process, gone with the run."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import ormsgpack
import psycopg
import pytest
from langchain_core.runnables import RunnableConfig
from sqlalchemy import make_url

from app.checkpoints import PostgresCheckpoints, checkpointer, sweep
from app.fleet import Fleet
from app.sealing import new_key
from app.services.gateway.scripted import Say
from app.services.keyring import Keyring
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.store.database import StoreUnavailable
from app.services.store.store import Store
from app.services.vault import Vault
from graphs import catalog
from graphs.agent.state import Turn
from graphs.types import ToolProposal
from tests.app.lite import ANN, Lite, lite
from tests.databases import stored

CANARY = "canary-3f9a"
TICKET = Say(tool_calls=(ToolProposal("x", "create_ticket", {"title": CANARY, "body": "It is broken."}),))


async def waits(bench: Lite, message: str = "open a ticket") -> str:
    answer = await bench.ask(message, mode="agent")
    assert answer.types[-1] == "approval.required"
    assert await bench.checkpoints.threads() == {f"acme/{answer.run_id}"}
    return answer.run_id


async def approve(bench: Lite) -> None:
    (waiting,) = (await bench.store.approvals.list("acme", state="pending")).items
    await bench.runner.decide(ANN, waiting.approval_id, "approve")


async def comes_to(bench: Lite, run_id: str, status: str) -> None:
    async with asyncio.timeout(40):
        while (await bench.runner.card(ANN, run_id)).status != status:
            await asyncio.sleep(0.01)


async def conversation_of(bench: Lite, run_id: str) -> str:
    return str((await bench.store.runs.load(run_id)).conversation_id)


def rows(url: str, home: Path) -> str:
    """All that the database of the checkpoints holds."""
    if url.startswith("postgresql"):
        return stored(url)
    return "".join(path.read_bytes().decode("latin-1") for path in home.glob("checkpoints.db*"))


async def test_a_run_begun_in_one_home_goes_on_in_another(
    tmp_path: Path, embedder: MiniLmEmbedder, new_postgres_url: Callable[[], str]
) -> None:
    url, (here, there) = new_postgres_url(), (tmp_path / "a", tmp_path / "b")
    here.mkdir()
    there.mkdir()
    async with lite(here, [TICKET], embedder, database_url=url) as bench:
        run_id = await waits(bench)
    assert not list(here.iterdir())
    async with lite(there, ["Done."], embedder, database_url=url) as bench:
        await approve(bench)
        await comes_to(bench, run_id, "completed")
        assert [ticket.title for ticket in (await bench.store.tickets.list("acme")).items] == [CANARY]


@pytest.mark.parametrize("end", ["erased", "cancelled", "completed"])
async def test_p05_of_a_run_that_is_over_no_checkpoint_is_left(
    end: str, tmp_path: Path, embedder: MiniLmEmbedder, store_url: str
) -> None:
    async with lite(tmp_path, [TICKET, "Done."], embedder, database_url=store_url) as bench:
        run_id = await waits(bench)
        assert CANARY in rows(store_url, tmp_path)
        if end == "erased":
            await bench.runner.erase(ANN, await conversation_of(bench, run_id))
        elif end == "cancelled":
            await bench.runner.cancel(ANN, run_id)
        else:
            await approve(bench)
            await comes_to(bench, run_id, "completed")
        async with asyncio.timeout(10):
            while await bench.checkpoints.threads():
                await asyncio.sleep(0.01)
    if end == "erased":
        assert CANARY not in rows(store_url, tmp_path)


async def test_p05_what_a_crash_left_is_swept_and_what_waits_stays(
    tmp_path: Path, embedder: MiniLmEmbedder, store_url: str
) -> None:
    async with lite(tmp_path, [TICKET, TICKET, "Done."], embedder, database_url=store_url) as bench:
        gone = await waits(bench)
        await bench.store.conversations.delete(await conversation_of(bench, gone), "acme", "ann")
        stays = (await bench.ask("open a ticket", mode="agent")).run_id
        assert await bench.checkpoints.threads() == {f"acme/{gone}", f"acme/{stays}"}
        await sweep(bench.checkpoints, bench.store)
        assert await bench.checkpoints.threads() == {f"acme/{stays}"}
        await approve(bench)
        await comes_to(bench, stays, "completed")


async def test_a_process_that_lost_its_run_leaves_its_heirs_checkpoints_alone(
    tmp_path: Path, embedder: MiniLmEmbedder, store_url: str
) -> None:
    names, gate = {"a"}, asyncio.Event()

    class Rolled:
        process_id = "a"

        async def living(self) -> set[str]:
            return names

    def fleet(store: Store) -> Fleet:
        return Fleet(store, Rolled(), bound_s=60, grace_s=60)

    held = Say(("Done.",), wait=gate)
    async with lite(tmp_path, [TICKET, held], embedder, database_url=store_url, fleet=fleet) as bench:
        run_id = await waits(bench)
        await approve(bench)
        async with asyncio.timeout(10):
            while not await bench.store.leases.take(run_id, "b", after="a"):
                await asyncio.sleep(0.01)
        gate.set()
        async with asyncio.timeout(20):
            while bench.runner.in_flight:
                await asyncio.sleep(0.01)
        assert await bench.checkpoints.threads() == {f"acme/{run_id}"}


async def test_v02_a_question_that_no_database_can_hold_waits_and_goes_on(
    tmp_path: Path, embedder: MiniLmEmbedder, store_url: str
) -> None:
    async with lite(tmp_path, [TICKET, "Done \0."], embedder, database_url=store_url) as bench:
        run_id = await waits(bench, "open \0 a \ud800 ticket")
        await approve(bench)
        await comes_to(bench, run_id, "completed")


async def test_d05_a_forged_checkpoint_is_data_and_is_never_executed(
    tmp_path: Path, embedder: MiniLmEmbedder, store_url: str
) -> None:
    ran = tmp_path / "ran"
    call = ormsgpack.packb(("os", "system", f"touch {ran}"))
    forged = ormsgpack.packb({"question": ormsgpack.Ext(0, call)})
    async with lite(tmp_path, [TICKET, "Done."], embedder, database_url=store_url) as bench:
        await waits(bench)
        await forge(bench, forged)
        await approve(bench)
        async with asyncio.timeout(20):
            while bench.runner.in_flight:
                await asyncio.sleep(0.01)
    assert not ran.exists()


@dataclass
class Planted:
    """A type that no state is made of; whoever builds one has run somebody else's choice."""

    built: ClassVar[list[str]] = []
    name: str

    def __post_init__(self) -> None:
        self.built.append(self.name)


@pytest.mark.parametrize("sealed", [False, True])
async def test_d05_the_agents_graph_builds_nothing_of_a_type_that_is_planted_and_no_false_warning_is_logged(
    sealed: bool, tmp_path: Path, store_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    at: RunnableConfig = {"configurable": {"thread_id": "acme/r1", "checkpoint_ns": ""}}
    vault = Vault(Keyring([new_key()])) if sealed else None
    async with checkpointer(store_url, tmp_path / "checkpoints.db", vault) as saver:
        graph = catalog.build("agent").compile(checkpointer=saver, name="agent")
        assert not [record for record in caplog.records if "msgpack" in record.message]
        await graph.aupdate_state(at, {"question": Planted("x"), "turns": (Turn(()),)}, as_node="validate")
        Planted.built.clear()
        found = await graph.aget_state(at)
    assert isinstance(found.values["turns"][0], Turn)
    assert found.values["question"] == {"name": "x"}
    assert not Planted.built


async def forge(bench: Lite, value: bytes) -> None:
    saver = bench.checkpoints
    if isinstance(saver, PostgresCheckpoints):
        async with saver._cursor() as cursor:
            await cursor.execute("UPDATE checkpoint_blobs SET blob = %s", (value,))
    else:
        await saver.conn.execute("UPDATE writes SET value = ?", (value,))
        await saver.conn.commit()


async def test_d13_connections_that_break_are_replaced_and_a_database_that_is_away_is_named(
    tmp_path: Path, embedder: MiniLmEmbedder, new_postgres_url: Callable[[], str]
) -> None:
    url = new_postgres_url()
    async with lite(tmp_path, [TICKET, "Done."], embedder, database_url=url) as bench:
        run_id = await waits(bench)
        plain = make_url(url).set(drivername="postgresql").render_as_string(False)
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with closing(psycopg.connect(plain, autocommit=True)) as connection:
            cut = connection.execute(f"SELECT count(pg_terminate_backend(pid)) {others}").fetchone()
        assert cut is not None
        assert cut[0] >= 2
        await approve(bench)
        await comes_to(bench, run_id, "completed")
        with pytest.raises(StoreUnavailable):
            async with bench.checkpoints._cursor() as cursor:  # type: ignore[union-attr]
                await cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


async def test_many_processes_that_start_at_once_make_the_tables_once(
    tmp_path: Path, new_postgres_url: Callable[[], str]
) -> None:
    url = new_postgres_url()
    async with AsyncExitStack() as stack:
        opened = [stack.enter_async_context(checkpointer(url, tmp_path / "unused.db")) for _ in range(6)]
        savers = await asyncio.gather(*opened)
        assert [await saver.threads() for saver in savers] == [frozenset()] * 6
