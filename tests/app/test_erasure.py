"""Persons that are erased: what goes, what stays whole, and that it can be done again from wherever it ended."""

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.checkpoints import PostgresCheckpoints, SqliteCheckpoints, checkpointer
from app.erasure import Erasure
from app.records import Actor, Principal, Scope
from app.sealing import new_key
from app.services.audit import audited
from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import JobItem, JobRequest, JobWork
from app.services.keyring import Keyring
from app.services.store.erasure import ERASED, Subject
from app.services.store.store import Store
from app.services.vault import Vault
from app.sight import EVERYTHING
from app.traces import Traces, TracesNotErased
from graphs.errors import Invalid, Missing
from tests.app.test_sealed_checkpoints import put
from tests.app.yard import Uploading, open_uploading
from tests.databases import stored
from tests.services.store.test_sealed import CANARY, NOW, fill

BY = Actor("default", "operator")
ADA = Principal("acme", "ada", frozenset({"chat", "documents"}), "k")
COUNTS = "import json, sys; print(len(json.loads(sys.stdin.readline())['trace_ids']))"
FAILS = "import sys; sys.exit(3)"


class Echo:
    name = "echo"
    scope: Scope = "chat"

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        raise NotImplementedError


@dataclass
class House:
    store: Store
    saver: PostgresCheckpoints | SqliteCheckpoints
    erasure: Erasure
    forgotten: list[str]
    uploading: Uploading


@asynccontextmanager
async def house(url: str, home: Path, script: str = COUNTS, vault: Vault | None = None) -> AsyncIterator[House]:
    """One without a vault, so that a canary that stays is seen."""
    store, forgotten = await Store.open(url, vault=vault), list[str]()

    async def forget(tenant_id: str) -> None:
        forgotten.append(tenant_id)

    try:
        async with (
            checkpointer(url, home / "checkpoints.db", vault) as saver,
            open_uploading(store, home, forget) as uploading,
        ):
            traces = Traces("", (sys.executable, "-c", script))
            erasure = Erasure(store, saver, forget, traces, uploading.withdrawal)
            yield House(store, saver, erasure, forgotten, uploading)
    finally:
        await store.close()


async def lived_in(house: House) -> None:
    """Ada of acme everywhere; Bea of acme and Ada of globex beside her."""
    store = house.store
    await fill(store, "acme", "r1")
    await put(house.saver, "acme/r1", question=CANARY)
    request = JobRequest(ADA, "echo", {"said": CANARY}, [JobItem(CANARY, {"text": CANARY}, CANARY.encode())])
    await JobDesk(store.database, [Echo()]).submit(request)
    await store.keys.create("acme", "ada", ["chat"], CANARY)
    await store.runs.start("r2", "acme", "bea", None, "chat", "hers", "api", "k", NOW)
    await store.feedback.put("r2", "acme", "ada", "down", CANARY)
    await fill(store, "globex", "r3")
    async with audited(store.database) as journal:
        await journal.note("key.created", Actor("acme", "ada"), "acme", "k1")


def held(url: str, home: Path) -> str:
    """Everything in files and tables, free pages and logs of SQLite among it."""
    files = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file()).decode("latin-1")
    return files + (stored(url) if url.startswith("postgresql") else "")


async def test_p05_a_person_is_gone_from_everywhere_and_others_are_not_touched(tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path) as at:
        await lived_in(at)
        assert "canary" in held(store_url, tmp_path)
        receipt = await at.erasure.erase(Subject("acme", "ada"), BY)
        assert receipt.removed == {
            "checkpoints": 1,
            "traces": 2,  # told twice, because an exporter may have had its hands on it
            "jobs": 1,
            "conversations": 1,
            "messages": 2,
            "runs": 1,
            "events": 1,
            "spans": 1,
            "approvals": 1,
            "escalations": 1,
            "feedback": 2,
            "tickets": 1,
            "keys": 1,
            "repeats": 0,
            "audit_people": 1,
        }
        assert any(line.startswith("backups:") for line in receipt.stays)
        assert at.forgotten == ["acme"]
        with pytest.raises(Missing):
            await at.store.runs.load("r1")
        assert (await at.store.runs.load("r2")).message == "hers"
        assert (await at.store.runs.load("r3")).message == CANARY
        await at.erasure.erase(Subject("globex", "ada"), BY)
    assert "canary" not in held(store_url, tmp_path)


async def test_p05_what_a_person_uploaded_goes_where_that_is_asked_and_is_counted_where_it_is_not(
    tmp_path: Path, store_url: str
) -> None:
    async with house(store_url, tmp_path) as at:
        await uploaded(at)
        told = (await at.erasure.erase(Subject("acme", "ada"), BY)).stays
        assert [line.split(" that")[0] for line in told if "that the person" in line] == ["2 documents and 1 tables"]
        assert [line.split(" of")[0] for line in told if "nobody wrote down" in line] == ["1 documents and 0 tables"]
        receipt = await at.erasure.erase(Subject("acme", "ada"), BY, documents=True)
        assert (receipt.removed["documents"], receipt.removed["tables"]) == (2, 1)
        assert not any("that the person" in line for line in receipt.stays)
        left = (await at.store.documents.list("acme")).items
        assert {record.document_id: record.uploaded_by for record in left} == {"hers": "bea", "old": None}
        assert [table.name for table in await at.uploading.tables.list("acme", EVERYTHING)] == ["wages"]
        entry = (await at.store.audit.latest("acme", 200))[0]
        assert (entry.action, dict(entry.facts)) == ("uploads.removed", {"documents": 2, "tables": 1})
    # Bea replaced what Ada had written first: what Ada wrote is in no earlier version and no file.
    assert "canary" not in held(store_url, tmp_path)


async def uploaded(at: House) -> None:
    """By Ada, by Bea in the place of what Ada had uploaded, and by nobody knows whom."""
    ingest, tables = at.uploading.ingest, at.uploading.tables
    for name in ("one", "two", "hers"):
        await ingest.add("acme", "notes", name, f"The {CANARY} sings in {name}.", uploaded_by="ada")
    await ingest.add("acme", "notes", "hers", "It is Bea's by now.", uploaded_by="bea")
    await ingest.add("acme", "notes", "old", "It was there before.")
    for name, user in (("birds", "ada"), ("wages", "bea")):
        said = CANARY if user == "ada" else "eur"
        await tables.put("acme", name, f"name\n{said}\n".encode(), "t.csv", sight=EVERYTHING, now=NOW, uploaded_by=user)


async def test_documents_go_with_a_person_and_with_no_conversation(tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path) as at:
        with pytest.raises(Invalid):
            await at.erasure.erase(Subject("acme", conversation_id="c-r1"), BY, documents=True)


async def test_p05_the_trail_stays_whole_and_names_nobody_any_more(tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path) as at:
        await lived_in(at)
        await at.erasure.erase(Subject("acme", "ada"), BY)
        assert (await at.store.audit.verify()).broken_at is None
        entries = await at.store.audit.latest("acme", 200)
        assert entries[0].action == "person.erased"
        assert entries[0].subject in {entry.person_id for entry in entries}
        assert "ada" not in {entry.user_id for entry in entries}


async def test_p05_asking_again_finds_nothing_and_leaves_no_entry(tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path) as at:
        await lived_in(at)
        await at.erasure.erase(Subject("acme", "ada"), BY)
        before = await at.store.audit.latest(None, 200)
        assert not any((await at.erasure.erase(Subject("acme", "ada"), BY)).removed.values())
        assert await at.store.audit.latest(None, 200) == before


async def test_p05_what_could_not_be_finished_is_found_again_and_is_not_exported_meanwhile(
    tmp_path: Path, store_url: str
) -> None:
    async with house(store_url, tmp_path, FAILS) as at:
        await lived_in(at)
        with pytest.raises(TracesNotErased):
            await at.erasure.erase(Subject("acme", "ada"), BY)
        assert [run.run_id for run in await at.store.runs.export_batch(10)] == ["r3"]
    async with house(store_url, tmp_path) as at:
        assert (await at.erasure.erase(Subject("acme", "ada"), BY)).removed["runs"] == 1


async def test_p05_one_conversation_goes_alone(tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path) as at:
        await lived_in(at)
        await fill(at.store, "acme", "r4")
        receipt = await at.erasure.erase(Subject("acme", conversation_id="c-r4"), BY)
        assert (receipt.removed["runs"], receipt.removed["conversations"]) == (1, 1)
        assert "jobs" not in receipt.removed
        assert (await at.store.runs.load("r1")).message == CANARY


async def test_what_a_person_decided_for_others_stands_without_the_name(tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path) as at:
        await fill(at.store, "acme", "r1")
        await at.erasure.erase(Subject("acme", "eve"), BY)
        (approval,) = await at.store.approvals.of_run("r1", "acme")
        assert (approval.state, approval.decided_by) == ("approved", ERASED)


@pytest.mark.parametrize("nobody", [Subject("acme"), Subject("", "ada"), Subject("")])
async def test_an_erasure_of_nobody_is_refused(nobody: Subject, tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path) as at:
        with pytest.raises(Invalid):
            await at.erasure.erase(nobody, BY)


async def test_p01_before_it_is_erased_a_canary_lies_there_sealed_alone(tmp_path: Path, store_url: str) -> None:
    async with house(store_url, tmp_path, vault=Vault(Keyring([new_key()]))) as at:
        await fill(at.store, "acme", "r1")
        await put(at.saver, "acme/r1", question=CANARY)
        assert "canary" not in held(store_url, tmp_path)
