"""Databases that are held, damaged or half migrated: said in our words, and nothing is lost by asking."""

import asyncio
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from app.services.store import database
from app.services.store.database import StoreUnavailable
from app.services.store.store import Store
from graphs.errors import Conflict

# Each child dies before another statement of the migration; what is imported is imported once.
MIGRATE_AND_DIE = """
import os, signal, sys
from sqlalchemy import Engine, event, make_url
from app.services.store.migrate import migrate

url, every = make_url(sys.argv[1]), int(sys.argv[2])

def run(last):
    seen = 0

    @event.listens_for(Engine, "before_cursor_execute")
    def count(*_):
        nonlocal seen
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)

    migrate(url, 5)

killed, last, ended = 0, 1, 1
while ended:
    if (child := os.fork()) == 0:
        run(last)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    assert ended in (0, signal.SIGKILL), ended
    killed, last = killed + bool(ended), last + every
print(killed)
"""


@pytest.mark.timeout(200)
def test_l07_a_migration_killed_at_any_statement_is_made_by_the_next_start(store_url: str) -> None:
    command = [sys.executable, "-c", MIGRATE_AND_DIE, store_url, "23"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 2

    async def open_and_write() -> None:
        store = await Store.open(store_url)
        await store.conversations.create("a", "u", "t")
        await store.close()

    asyncio.run(open_and_write())


async def test_d13_a_lock_that_another_session_keeps_is_waited_for_and_then_named(
    new_postgres_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.3)
    url = new_postgres_url()
    store = await Store.open(url)
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain) as other:
        other.execute("LOCK TABLE conversations")
        async with asyncio.timeout(20):
            with pytest.raises(StoreUnavailable):
                await store.conversations.create("a", "u", "t")
    await store.conversations.create("a", "u", "t")
    await store.close()


async def test_d13_a_session_that_stands_still_in_a_transaction_keeps_no_lock_for_ever(
    new_postgres_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_postgres_url()
    other = await Store.open(url)
    await other.ping()  # connected, so that its own patience is the usual one
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    still = await Store.open(url)
    connection = await still._database._engine.connect()
    await connection.exec_driver_sql("LOCK TABLE conversations")  # and nothing more: a process that is frozen
    async with asyncio.timeout(20):
        await other.conversations.create("a", "u", "t")
    with pytest.raises(DBAPIError):
        await connection.exec_driver_sql("SELECT 1")
    await connection.close()
    for store in (still, other):
        await store.close()


async def test_d13_who_finds_no_connection_is_told_to_come_back(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setattr(database, "POOL_SIZE", 1)
    store = await Store.open(store_url)
    async with store._database.read():
        with pytest.raises(StoreUnavailable) as told:
            await store.ping()
    assert told.value.retry_after_s == 1
    await store.ping()
    await store.close()


async def test_d13_a_run_that_another_process_keeps_waiting_is_refused_and_the_next_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.1)
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}")
    begun = partial(
        store.runs.start,
        tenant_id="a",
        user_id="u",
        conversation_id=None,
        mode="chat",
        message="",
        feature="",
        key_id="",
        created_at=datetime.now(UTC),
    )
    await begun("r1")  # from here on the connection is kept
    with sqlite3.connect(tmp_path / "store.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await begun("r2")
        other.execute("ROLLBACK")
    with pytest.raises(Conflict):
        await begun("r1")
    await begun("r2")
    await store.close()


@pytest.mark.parametrize("damage", ["no database", "a broken page"])
async def test_d16_a_damaged_file_says_that_it_is(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "pilothouse.db"
    url = f"sqlite+aiosqlite:///{file}"
    store = await Store.open(url)
    for number in range(50):
        await store.conversations.create("a", "u", f"{number} " + "t" * 100)
    await store.close()
    content = bytearray(file.read_bytes())
    if damage == "no database":
        content[:100] = b"\xff" * 100
    else:
        content[8_192:] = b"\xff" * (len(content) - 8_192)  # all but the first pages, so that it opens
    file.write_bytes(content)

    async def open_and_ask() -> None:
        store = await Store.open(url)
        try:
            await store.conversations.list("a", "u")
        finally:
            await store.close()

    with pytest.raises(StoreUnavailable, match="damaged"):
        await open_and_ask()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no mount namespaces here")
def test_d16_a_folder_that_cannot_be_written_refuses_the_start(tmp_path: Path) -> None:
    opened = f"import asyncio\nfrom app.services.store.store import Store\nasyncio.run(Store.open('sqlite+aiosqlite:///{tmp_path}/a/b.db'))"
    apart = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o ro tmpfs "$1" && exec "$2" -c "$3"', "-"]
    ran = subprocess.run([*apart, str(tmp_path), sys.executable, opened], capture_output=True, text=True, check=False)
    if "mount" in ran.stderr:
        pytest.skip("this user may not mount")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith("StoreUnavailable: the database could not be opened")


async def test_d16_a_folder_that_is_a_file_refuses_the_start(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(StoreUnavailable):
        await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'home' / 'pilothouse.db'}")
