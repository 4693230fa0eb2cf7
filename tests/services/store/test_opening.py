"""How a database is opened: by anyone at the same time, to this version's schema or not at all."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from app.services.alerts.tables import metadata as alerts_metadata
from app.services.audit import metadata as audit_metadata
from app.services.jobs.tables import metadata as jobs_metadata
from app.services.quota.tables import metadata as ledger_metadata
from app.services.retrieval.tables import metadata as golden_metadata
from app.services.store.database import StoreUnavailable
from app.services.store.migrate import SchemaTooNew
from app.services.store.store import Store
from app.services.store.tables import metadata
from app.services.store.vaults import metadata as vault_metadata
from app.services.switches.tables import metadata as switches_metadata
from app.services.tools.tables import metadata as tools_metadata

TABLES = [
    metadata,
    ledger_metadata,
    switches_metadata,
    alerts_metadata,
    jobs_metadata,
    golden_metadata,
    audit_metadata,
    vault_metadata,
    tools_metadata,
]

OPEN_AND_WRITE = """
import asyncio, sys
from app.services.store.store import Store

async def main():
    store = await Store.open(sys.argv[1])
    await store.conversations.create("a", "u", "t")
    await store.close()

asyncio.run(main())
"""


async def test_k11_four_processes_may_open_a_new_database_at_once(store_url: str) -> None:
    async def other_process() -> tuple[int | None, bytes]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-c", OPEN_AND_WRITE, store_url, stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        return process.returncode, errors

    assert await asyncio.gather(*(other_process() for _ in range(4))) == [(0, b"")] * 4
    store = await Store.open(store_url)
    assert len((await store.conversations.list("a", "u")).items) == 4
    await store.close()


async def test_many_openings_in_one_process_share_a_new_database(store_url: str) -> None:
    stores = await asyncio.gather(*(Store.open(store_url) for _ in range(6)))
    for store in stores:
        await store.ping()
        await store.close()


async def test_the_migrations_make_the_tables_that_the_code_expects(store_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(connection), TABLES))

    store = await Store.open(store_url)
    async with store._database.read() as connection:
        assert await connection.run_sync(differences) == []
    await store.close()


async def test_l06_a_database_of_a_newer_version_is_refused_untouched(store_url: str) -> None:
    store = await Store.open(store_url)
    async with store._database.write() as connection:
        await connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    await store.close()
    with pytest.raises(SchemaTooNew, match="9999"):
        await Store.open(store_url)


async def test_what_was_written_is_there_after_opening_again(store_url: str) -> None:
    store = await Store.open(store_url)
    created = await store.conversations.create("a", "u", "t")
    await store.close()
    store = await Store.open(store_url)
    assert await store.conversations.get(created.conversation_id, "a", "u") == created
    await store.close()


@pytest.mark.parametrize(
    "url", ["sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:", "sqlite:///x.db", "mysql://x/y"]
)
async def test_a_url_that_can_not_work_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        await Store.open(url)


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await Store.open("postgresql+psycopg://postgres@127.0.0.1:1/none")


async def test_d13_lost_connections_to_the_server_are_replaced(new_postgres_url: Callable[[], str]) -> None:
    url = new_postgres_url()
    store, other = await Store.open(url), await Store.open(url)
    await store.ping()
    async with other._database.read() as connection:
        await connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await store.ping()
    await store.close()
    await other.close()


async def test_sqlite_is_opened_for_many_readers_and_for_forgetting(tmp_path: Path) -> None:
    store = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'new folder' / 'with % sign.db'}")
    async with store._database.read() as connection:
        wanted = {
            "journal_mode": "wal",
            "synchronous": 1,
            "foreign_keys": 1,
            "secure_delete": 1,
            "busy_timeout": 30_000,
        }
        for pragma, value in wanted.items():
            assert (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one() == value, pragma
    await store.close()


def contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_what_was_deleted_is_not_in_the_file_either(tmp_path: Path) -> None:
    canary = "canary-4242-4242"
    path = tmp_path / "pilothouse.db"
    store = await Store.open(f"sqlite+aiosqlite:///{path}")
    created = await store.conversations.create("a", "u", canary)
    for size in (10, 100_000):
        await store.conversations.append(created.conversation_id, "a", "user", canary * size, None)
    assert canary.encode() in contents(tmp_path)
    await store.conversations.delete(created.conversation_id, "a", "u")
    # Until a checkpoint the write-ahead log still holds old pages; the last one to close makes one.
    await store.close()
    assert canary.encode() not in contents(tmp_path)
