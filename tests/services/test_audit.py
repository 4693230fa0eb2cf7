"""The audit trail: whole, in order, and impossible to change without being found out."""

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from app.records import Actor
from app.services.audit import GENESIS, PLATFORM, Trail, audited, entries
from app.services.store.store import Store

ANN, BOB = Actor("acme", "ann"), Actor("acme", "bob@example.org")


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(store_url)
    yield opened
    await opened.close()


@pytest.fixture
def trail(store: Store) -> Trail:
    return Trail(store.database)


async def write(store: Store, count: int, by: Actor = ANN) -> None:
    for number in range(count):
        async with audited(store.database) as journal:
            await journal.note("key.created", by, by.tenant_id, f"k{number}", {"scopes": "chat"})


async def tamper(store: Store, *statements: str) -> None:
    """As the database's administrator would, whom no trigger stops."""
    async with store.database.write() as connection:
        if connection.dialect.name == "sqlite":
            await connection.execute(text("DROP TRIGGER IF EXISTS audit_no_update"))
            await connection.execute(text("DROP TRIGGER IF EXISTS audit_no_delete"))
        else:
            await connection.execute(text("DROP TRIGGER IF EXISTS audit_append_only ON audit"))
        for statement in statements:
            await connection.execute(text(statement))


async def test_a_trail_that_nobody_touched_is_whole(store: Store, trail: Trail) -> None:
    empty = await trail.verify()
    assert (empty.count, empty.head, empty.broken_at) == (0, GENESIS, None)
    await write(store, 3)
    whole = await trail.verify()
    newest, *_ = await trail.latest("acme", 5)
    assert (whole.count, whole.head, whole.broken_at) == (3, newest.digest, None)


@pytest.mark.parametrize(
    ("tampering", "broken_at"),
    [
        ("UPDATE audit SET subject = 'k9' WHERE sequence = 2", 2),
        ("UPDATE audit SET at_us = at_us + 1 WHERE sequence = 1", 1),
        ("UPDATE audit SET person_id = '' WHERE sequence = 3", 3),
        ("UPDATE audit SET facts = '{}' WHERE sequence = 2", 2),
        ("UPDATE audit SET tenant_id = 'umbrella' WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence = 2", 2),
        ("DELETE FROM audit WHERE sequence = 1", 1),
        ("UPDATE audit SET sequence = 9 WHERE sequence = 4", 4),
        (
            "INSERT INTO audit SELECT 5, at_us, tenant_id, person_id, action, subject, facts, digest FROM audit"
            " WHERE sequence = 4",
            5,
        ),
    ],
)
async def test_an_entry_that_was_changed_dropped_or_slipped_in_is_found(
    store: Store, trail: Trail, tampering: str, broken_at: int
) -> None:
    await write(store, 4)
    await tamper(store, tampering)
    assert (await trail.verify()).broken_at == broken_at


async def test_a_trail_that_was_cut_off_or_written_anew_is_found_by_a_digest_noted_elsewhere(
    store: Store, trail: Trail
) -> None:
    await write(store, 3)
    noted = {3: (await trail.verify()).head}
    assert (await trail.verify(noted)).broken_at is None
    await tamper(store, "DELETE FROM audit WHERE sequence = 3")
    assert (await trail.verify()).broken_at is None
    assert (await trail.verify(noted)).broken_at == 3
    await write(store, 1)
    anew = await trail.verify(noted)
    assert (anew.broken_at, anew.why) == (3, "the chain was written anew: the anchor differs")


@pytest.mark.parametrize("change", ["UPDATE audit SET subject = 'x'", "DELETE FROM audit"])
async def test_the_database_refuses_to_change_or_remove_entries(store: Store, change: str) -> None:
    await write(store, 1)
    with pytest.raises(DatabaseError, match="append-only"):
        async with store.database.write() as connection:
            await connection.execute(text(change))


async def test_what_is_rolled_back_leaves_no_entry(store: Store, trail: Trail) -> None:
    with pytest.raises(RuntimeError):
        async with audited(store.database) as journal:
            await journal.note("key.created", ANN, "acme", "k1")
            raise RuntimeError
    assert (await trail.verify()).count == 0


async def test_a_person_is_an_opaque_id_that_can_be_forgotten_without_breaking_the_chain(
    store: Store, trail: Trail
) -> None:
    await write(store, 2, BOB)
    async with store.database.read() as connection:
        rows = (await connection.execute(entries.select())).all()
    assert not any("bob" in str(value) for row in rows for value in row)
    assert len({row.person_id for row in rows}) == 1
    assert [each.user_id for each in await trail.latest("acme", 5)] == [BOB.user_id] * 2
    async with store.database.write() as connection:
        await connection.execute(text("DELETE FROM audit_people WHERE user_id = :who"), {"who": BOB.user_id})
    assert [each.user_id for each in await trail.latest("acme", 5)] == [None, None]
    assert (await trail.verify()).broken_at is None


async def test_a09_a_tenant_reads_its_own_entries_page_by_page(store: Store, trail: Trail) -> None:
    await write(store, 3)
    await write(store, 2, Actor("umbrella", "eve"))
    async with audited(store.database) as journal:
        await journal.note("approval.expired", PLATFORM, "acme", "a1")
    mine = await trail.latest("acme", 2)
    assert [each.sequence for each in mine] == [6, 3]
    assert [each.sequence for each in await trail.latest("acme", 2, before=3)] == [2, 1]
    assert mine[0].user_id is None
    assert len(await trail.latest(None, 10)) == 6


def _writer(url: str) -> None:
    async def main() -> None:
        store = await Store.open(url)
        await write(store, 20, Actor("acme", f"p{os.getpid()}"))
        await store.close()

    asyncio.run(main())


async def test_processes_that_write_at_once_make_one_chain(store: Store, trail: Trail, store_url: str) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_writer, args=(store_url,)) for _ in range(2)]
    for writer in writers:
        writer.start()
    await asyncio.gather(*(write(store, 5) for _ in range(4)))
    for writer in writers:
        await asyncio.to_thread(writer.join)
    assert [writer.exitcode for writer in writers] == [0, 0]
    verdict = await trail.verify()
    assert (verdict.count, verdict.broken_at) == (60, None)
