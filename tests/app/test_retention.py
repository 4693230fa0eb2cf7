"""What was kept long enough goes, of each tenant by its own days, and nothing that is not over does."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.checkpoints import PostgresCheckpoints, SqliteCheckpoints, checkpointer
from app.config.retention import RetentionConfig, TenantRetention
from app.names import HANDBOOK, SHARED_TENANT
from app.records import Actor
from app.retention import Retention
from app.services.store.store import Store
from app.sight import EVERYTHING
from app.traces import Traces, TracesNotErased
from graphs.errors import Missing
from tests.app.test_erasure import COUNTS, FAILS, held
from tests.app.test_sealed_checkpoints import put
from tests.app.yard import Uploading, open_uploading
from tests.services.store.test_sealed import CANARY, LATER, NOW, fill

ALL_DAYS = dict.fromkeys(("conversations_days", "runs_days", "feedback_days", "escalations_days", "tickets_days"), 30)
CONFIG = RetentionConfig(**ALL_DAYS, tenants={"globex": TenantRetention(conversations_days=90, tickets_days=None)})


@dataclass
class Clock:
    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Archive:
    store: Store
    saver: PostgresCheckpoints | SqliteCheckpoints
    retention: Retention
    clock: Clock
    uploading: Uploading

    async def later(self, days: float) -> dict[str, int]:
        """What goes at a round that many days after everything was written."""
        self.clock.now = NOW + timedelta(days=days)
        return {name: count for name, count in (await self.retention.sweep(nothing)).items() if count}


async def nothing(_: int) -> None:
    pass


async def forget(_: str) -> None:
    pass


@asynccontextmanager
async def archive(
    url: str, home: Path, config: RetentionConfig = CONFIG, script: str = COUNTS
) -> AsyncIterator[Archive]:
    clock = Clock()
    store = await Store.open(url, clock)
    try:
        async with (
            checkpointer(url, home / "checkpoints.db") as saver,
            open_uploading(store, home, forget) as uploading,
        ):
            traces = Traces("", (sys.executable, "-c", script))
            retention = Retention(store, saver, traces, uploading.withdrawal, config)
            yield Archive(store, saver, retention, clock, uploading)
    finally:
        await store.close()


async def lived_in(at: Archive) -> None:
    await fill(at.store, "acme", "r1")
    await put(at.saver, "acme/r1", question=CANARY)
    await fill(at.store, "globex", "r2")


async def test_each_tenants_own_days_count_and_of_what_goes_no_trace_stays(tmp_path: Path, store_url: str) -> None:
    async with archive(store_url, tmp_path) as at:
        await lived_in(at)
        assert await at.later(29) == {}
        gone = await at.later(31)
        assert (gone["conversations"], gone["runs"], gone["checkpoints"], gone["traces"]) == (1, 1, 1, 1)
        assert (gone["messages"], gone["events"], gone["spans"], gone["tickets"]) == (2, 1, 1, 1)
        with pytest.raises(Missing):
            await at.store.runs.load("r1")
        # Globex's opinions go by everybody's days; its conversations and tickets have their own.
        assert (await at.store.runs.load("r2")).message == CANARY
        assert len((await at.store.tickets.list("globex")).items) == 1
        assert (await at.later(91))["conversations"] == 1
        assert len((await at.store.tickets.list("globex")).items) == 1
        assert (await at.store.audit.verify()).broken_at is None
        swept = [entry for entry in await at.store.audit.latest("acme", 200) if entry.action == "retention.swept"]
        assert {entry.facts["kind"] for entry in swept} == {"conversations", "tickets"}
        assert {entry.person_id for entry in swept} == {""}


async def test_p05_what_is_swept_is_in_no_file_and_no_table(tmp_path: Path, store_url: str) -> None:
    everything = RetentionConfig(**ALL_DAYS)
    async with archive(store_url, tmp_path, everything) as at:
        await lived_in(at)
        assert "canary" in held(store_url, tmp_path)
        await at.later(31)
    assert "canary" not in held(store_url, tmp_path)


async def test_a_run_that_waits_is_not_swept_before_it_ends_nor_is_its_conversation(
    tmp_path: Path, store_url: str
) -> None:
    async with archive(store_url, tmp_path, RetentionConfig(**ALL_DAYS, approvals_days=1)) as at:
        for run_id, conversation, opens in (("waits", "c1", "t"), ("alone", None, None)):
            await at.store.runs.start(run_id, "acme", "ada", conversation, "agent", "do it", "api", "k", NOW, {}, opens)
            asked = await at.store.approvals.create(run_id, "i", "acme", "ada", "x", {}, "write", LATER)
            await at.store.approvals.create(run_id, "j", "acme", "ada", "y", {}, "write", LATER)
            await at.store.approvals.decide(
                asked.approval_id, "acme", Actor("acme", "eve"), "approve", None, "", at.clock()
            )
            assert await at.store.runs.set_status(run_id, "waiting", "running")
        assert await at.later(400) == {}
        states = {each.state for each in await at.store.approvals.of_run("waits", "acme")}
        assert states == {"approved", "pending"}
        for run_id in ("waits", "alone"):
            assert await at.store.runs.set_status(run_id, "cancelled", "waiting")
        assert await at.later(401) == {"approvals": 2}
        assert (await at.later(431))["runs"] == 2


async def test_a_conversation_is_as_old_as_its_last_run(tmp_path: Path, store_url: str) -> None:
    async with archive(store_url, tmp_path) as at:
        await fill(at.store, "acme", "r1")
        at.clock.now = NOW + timedelta(days=20)
        await at.store.runs.start("r9", "acme", "ada", "c-r1", "chat", "again", "api", "k", at.clock())
        assert await at.store.runs.set_status("r9", "failed", "running")
        assert "conversations" not in await at.later(49)
        assert (await at.later(51))["conversations"] == 1


async def test_documents_and_tables_go_by_their_last_writing_and_the_handbook_stays(
    tmp_path: Path, store_url: str
) -> None:
    async with archive(store_url, tmp_path, RetentionConfig(documents_days=30)) as at:
        ingest, tables = at.uploading.ingest, at.uploading.tables
        for day, name in ((0, "old"), (20, "new")):
            at.clock.now = NOW + timedelta(days=day)
            await ingest.add("acme", "notes", name, f"{CANARY} {name}" if day == 0 else "It stays.")
            await tables.put("acme", name, b"a\n1\n", "t.csv", sight=EVERYTHING, now=at.clock())
        at.clock.now = NOW
        await ingest.add(SHARED_TENANT, HANDBOOK, "page", "How to start.")
        assert await at.later(31) == {"documents": 1, "tables": 1}
        assert [each.document_id for each in (await at.store.documents.list("acme")).items] == ["new"]
        assert [table.name for table in await tables.list("acme", EVERYTHING)] == ["new"]
        assert len((await at.store.documents.list(SHARED_TENANT, HANDBOOK)).items) == 1
    assert "canary" not in held(store_url, tmp_path)


async def test_without_days_everything_stays(tmp_path: Path, store_url: str) -> None:
    async with archive(store_url, tmp_path, RetentionConfig()) as at:
        await lived_in(at)
        assert await at.later(40_000) == {}


async def test_what_mlflow_keeps_is_found_again_and_rows_stay_until_then(tmp_path: Path, store_url: str) -> None:
    async with archive(store_url, tmp_path, script=FAILS) as at:
        await lived_in(at)
        with pytest.raises(TracesNotErased):
            await at.later(31)
        assert (await at.store.runs.load("r1")).message == CANARY
    async with archive(store_url, tmp_path) as at:
        assert (await at.later(31))["runs"] == 1
