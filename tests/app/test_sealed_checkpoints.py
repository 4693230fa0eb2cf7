"""Agents' checkpoints at rest, with the store on either database."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.checkpoints import PostgresCheckpoints, SqliteCheckpoints, checkpointer, thread_id
from app.sealing import new_key
from app.services.keyring import Keyring
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.vault import SealBroken, Unsealed, Vault, VaultError, VaultKeyMissing
from tests.app.lite import lite
from tests.app.test_checkpoints import CANARY, TICKET, approve, comes_to, rows, waits

VAULT = Vault(Keyring([new_key()]))
Saver = PostgresCheckpoints | SqliteCheckpoints


@pytest.fixture
async def saver(tmp_path: Path, store_url: str) -> AsyncIterator[Saver]:
    async with checkpointer(store_url, tmp_path / "checkpoints.db", VAULT) as opened:
        yield opened


def at(thread: str, checkpoint_id: str | None = None) -> dict[str, Any]:
    told = {"thread_id": thread, "checkpoint_ns": ""} | ({"checkpoint_id": checkpoint_id} if checkpoint_id else {})
    return {"configurable": told}


async def put(saver: Saver, thread: str, checkpoint_id: str = "1", question: Any = CANARY) -> None:
    checkpoint: Any = {
        "v": 4,
        "id": checkpoint_id,
        "ts": "2026-03-01T00:00:00Z",
        "channel_values": {"question": question, "notes": [CANARY], "left": 3, "none": None},
        "channel_versions": dict.fromkeys(("question", "notes", "left", "none"), checkpoint_id),
        "versions_seen": {},
    }
    config: Any = at(thread) | {"metadata": {"mail": CANARY}}
    config["configurable"]["asked_by"] = CANARY
    await saver.aput(config, checkpoint, {"source": "loop", "step": 1, "who": CANARY}, checkpoint["channel_versions"])  # type: ignore[typeddict-unknown-key]
    await saver.aput_writes(at(thread, checkpoint_id), [("answer", CANARY), ("__resume__", [CANARY])], "task")  # type: ignore[arg-type]


async def change(saver: Saver, statement: str, *values: Any) -> None:
    """`statement` for SQLite; the tables and columns of PostgreSQL are put in their places."""
    if isinstance(saver, SqliteCheckpoints):
        await saver.conn.execute(statement, values)
        await saver.conn.commit()
        return
    told = statement.replace("checkpoints", "checkpoint_blobs").replace("writes", "checkpoint_writes")
    for column in ("checkpoint =", "SELECT checkpoint ", "value =", "SELECT value "):
        told = told.replace(column, column.replace("checkpoint", "blob").replace("value", "blob"))
    async with saver._cursor() as cursor:
        await cursor.execute(told.replace("?", "%s").encode(), values)


async def test_p02_neither_values_nor_metadata_lie_there_in_the_clear(
    saver: Saver, tmp_path: Path, store_url: str
) -> None:
    await put(saver, thread_id("acme", "r1"))
    found = await saver.aget_tuple(at(thread_id("acme", "r1")))  # type: ignore[arg-type]
    assert found is not None
    assert found.checkpoint["channel_values"] == {"question": CANARY, "notes": [CANARY], "left": 3, "none": None}
    assert ("task", "__resume__", [CANARY]) in (found.pending_writes or [])
    assert found.metadata == {"source": "loop", "step": 1}
    assert [each.checkpoint["id"] async for each in saver.alist(at(thread_id("acme", "r1")))] == ["1"]  # type: ignore[arg-type]
    assert "canary" not in rows(store_url, tmp_path)


@pytest.mark.parametrize("place", ["checkpoints:checkpoint", "writes:value"])
@pytest.mark.parametrize("source", ["acme/r2", "globex/r1"])
async def test_p03_what_was_cut_from_another_thread_does_not_open(saver: Saver, place: str, source: str) -> None:
    table, column = place.split(":")
    await put(saver, "acme/r1")
    await put(saver, source)
    channel = " AND channel = 'notes'" if table == "checkpoints" and isinstance(saver, PostgresCheckpoints) else ""
    await change(
        saver,
        f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} WHERE thread_id = '{source}'{channel} LIMIT 1)"
        f" WHERE thread_id = 'acme/r1'{channel}",
    )
    with pytest.raises(SealBroken):
        await saver.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]


async def test_p03_a_decision_of_an_earlier_step_cannot_be_played_again(saver: Saver) -> None:
    await put(saver, "acme/r1", "1")
    await put(saver, "acme/r1", "2")
    await change(
        saver,
        "UPDATE writes SET value = (SELECT value FROM writes WHERE checkpoint_id = '1' AND channel = '__resume__')"
        " WHERE checkpoint_id = '2' AND channel = '__resume__'",
    )
    with pytest.raises(SealBroken):
        await saver.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["checkpoints:checkpoint", "writes:value"])
@pytest.mark.parametrize("kind", ["msgpack", "json", "sealed:json", "sealed:msgpack"])
async def test_p03_a_plain_value_is_refused_whatever_it_says_of_itself(saver: Saver, place: str, kind: str) -> None:
    table, column = place.split(":")
    await put(saver, "acme/r1")
    plain = saver.sealer._inner.dumps_typed({"question": "approve"})[1]
    await change(saver, f"UPDATE {table} SET {column} = ?, type = ?", plain, kind)
    with pytest.raises((Unsealed, SealBroken)):
        await saver.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]


async def test_p03_a_sealed_value_of_another_type_is_refused(saver: Saver) -> None:
    await put(saver, "acme/r1")
    await change(saver, "UPDATE writes SET type = 'sealed:json'")
    with pytest.raises(SealBroken):
        await saver.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]


async def test_p03_a_short_value_beside_a_checkpoint_is_refused(saver: Saver) -> None:
    if isinstance(saver, SqliteCheckpoints):
        pytest.skip("SQLite's saver keeps checkpoints whole")
    await put(saver, "acme/r1")
    async with saver._cursor() as cursor:
        await cursor.execute("DELETE FROM checkpoint_blobs WHERE channel = 'question'")
        await cursor.execute(
            """UPDATE checkpoints SET checkpoint = jsonb_set(checkpoint, '{channel_values,question}', '"approve"')"""
        )
    with pytest.raises(Unsealed):
        await saver.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]


async def test_p04_a_lost_key_is_named_and_no_half_of_a_checkpoint_is_given(
    saver: Saver, tmp_path: Path, store_url: str
) -> None:
    await put(saver, "acme/r1")
    async with checkpointer(store_url, tmp_path / "checkpoints.db", Vault(Keyring([new_key()]))) as other:
        with pytest.raises(VaultKeyMissing, match=VAULT.keyring.current.key_id):
            await other.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]


async def test_what_was_saved_before_sealing_is_read_while_that_is_allowed_and_goes_on_sealed(
    tmp_path: Path, store_url: str
) -> None:
    async with checkpointer(store_url, tmp_path / "checkpoints.db") as before:
        await put(before, "acme/r1")
    lenient = Vault(VAULT.keyring, accepts_plain=True)
    async with checkpointer(store_url, tmp_path / "checkpoints.db", lenient) as after:
        found = await after.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]
        assert found is not None
        following: Any = {**found.checkpoint, "id": "2"}
        await after.aput(found.config, following, {"source": "loop", "step": 2}, {})
        again = await after.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]
    assert again is not None
    assert again.checkpoint["channel_values"] == found.checkpoint["channel_values"]
    async with checkpointer(store_url, tmp_path / "checkpoints.db", VAULT) as strict:
        with pytest.raises(VaultError):
            await strict.aget_tuple(at("acme/r1", "1"))  # type: ignore[arg-type]


async def test_p01_an_agent_waits_and_goes_on_with_nothing_in_the_clear(
    tmp_path: Path, embedder: MiniLmEmbedder, store_url: str
) -> None:
    async with lite(tmp_path, [TICKET, "Done."], embedder, database_url=store_url, vault=VAULT) as bench:
        run_id = await waits(bench, f"open a ticket about {CANARY}")
        assert "canary" not in rows(store_url, tmp_path)
        await approve(bench)
        await comes_to(bench, run_id, "completed")
        assert [ticket.title for ticket in (await bench.store.tickets.list("acme")).items] == [CANARY]
