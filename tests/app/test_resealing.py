"""Keys that change while everything goes on, on either database."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import Connection, insert, update

from app.checkpoints import checkpointer
from app.resealing import Resealing
from app.sealing import new_key, put_first
from app.services.keyring import Key, Keyring
from app.services.store.migrate import script_config
from app.services.store.store import Store
from app.services.store.tables import messages, runs
from app.services.store.vaults import noted_keys
from app.services.vault import SealBroken, Vault, VaultError, VaultKeyMissing
from graphs.errors import Conflict
from tests.app.test_sealed_checkpoints import at, put
from tests.services.store.test_sealed import CANARY, fill

OLD, NEW = new_key(), new_key()
NOW = datetime(2026, 3, 1, tzinfo=UTC)


def brought_back_to(connection: Connection, revision: str) -> None:
    config = script_config()
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


async def quiet(_done: int, _total: int) -> None: ...


@asynccontextmanager
async def opened(url: str, home: Path, *keys: Key, file: Path | None = None) -> AsyncIterator[tuple[Store, Resealing]]:
    vault = Vault(Keyring(keys) if file is None else Keyring.of_file(file))
    store = await Store.open(url, vault=vault)
    try:
        async with checkpointer(url, home / "checkpoints.db", vault) as saver:
            yield store, Resealing(store.database, saver, vault)
    finally:
        await store.close()


async def test_p04_everything_comes_under_the_new_key_and_the_old_one_is_not_needed_then(
    tmp_path: Path, store_url: str
) -> None:
    async with opened(store_url, tmp_path, OLD) as (store, _):
        conversation_id = await fill(store, "acme", "r1")
        async with checkpointer(store_url, tmp_path / "checkpoints.db", store.database.seals.vault) as saver:
            await put(saver, "acme/r1", question=CANARY)
    async with opened(store_url, tmp_path, NEW, OLD) as (_, resealing):
        assert await resealing.left() > 10
        done = await resealing.run(quiet)
        assert (done.key_id, done.retired) == (NEW.key_id, (OLD.key_id,))
        assert done.checkpoints >= 3
        assert await resealing.left() == 0
        assert (await resealing.run(quiet)).rows == 0
    async with opened(store_url, tmp_path, NEW) as (store, _):
        assert await noted_keys(store.database) == [NEW.key_id]
        assert (await store.runs.get("r1", "acme", None)).message == CANARY
        assert (await store.runs.events("r1", "acme"))[0].data == {"t": CANARY}
        said = await store.conversations.messages(conversation_id, "acme", "ada")
        assert [each.content for each in said] == [CANARY, CANARY]
        async with checkpointer(store_url, tmp_path / "checkpoints.db", store.database.seals.vault) as saver:
            found = await saver.aget_tuple(at("acme/r1"))  # type: ignore[arg-type]
        assert found is not None
        assert found.checkpoint["channel_values"]["question"] == CANARY


async def test_p04_a_key_changes_under_load_without_an_error_or_a_lost_row(tmp_path: Path, store_url: str) -> None:
    file = tmp_path / "encryption.keys"
    file.write_text(OLD.written())
    async with opened(store_url, tmp_path, file=file) as (server, _):
        for number in range(40):
            await fill(server, "acme", f"before{number}")
        over, written = asyncio.Event(), 0

        async def load() -> None:
            nonlocal written
            while not over.is_set():
                await fill(server, "acme", f"during{written}")
                written += 1
                assert (await server.runs.get(f"before{written % 40}", "acme", None)).message == CANARY

        loading = asyncio.create_task(load())
        put_first(file, NEW)
        async with opened(store_url, tmp_path, file=file) as (_, resealing):
            await asyncio.sleep(1.1)  # the server looks at its file once a second
            done = await resealing.run(quiet)
            over.set()
            await loading
            assert done.rows > 40
            assert await resealing.left() == 0
        assert written
    async with opened(store_url, tmp_path, NEW) as (store, _):
        for number in range(written):
            assert (await store.runs.get(f"during{number}", "acme", None)).message == CANARY


KILLED = """
import asyncio, sys
from pathlib import Path
from app.services.keyring import parse_keys
from tests.app.test_resealing import opened

async def main():
    async with opened(sys.argv[1], Path(sys.argv[2]), *parse_keys(sys.argv[3])) as (_, resealing):
        async def told(done, total):
            print(done, flush=True)
            await asyncio.sleep(0.2)
        await resealing.run(told)

asyncio.run(main())
"""


async def test_p04_a_rotation_that_is_killed_leaves_no_half_row_and_goes_on(tmp_path: Path, store_url: str) -> None:
    async with opened(store_url, tmp_path, OLD) as (store, _):
        await fill(store, "acme", "r0")
        row = {"tenant_id": "acme", "conversation_id": "c-r0", "role": "user", "created_at": NOW}
        rows = [
            store.database.seals.seal(messages, row | {"message_id": f"m{number}", "content": CANARY})
            for number in range(1_000)
        ]
        async with store.database.write() as connection:
            await connection.execute(insert(messages), rows)
    command = [sys.executable, "-c", KILLED, store_url, str(tmp_path), f"{NEW.written()},{OLD.written()}"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220 - a real process, to be killed
    assert child.stdout is not None
    while int((await asyncio.to_thread(child.stdout.readline)).strip()) < 300:
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    async with opened(store_url, tmp_path, NEW, OLD) as (store, resealing):
        assert 0 < await resealing.left() < 1_000
        said = await store.conversations.messages("c-r0", "acme", "ada", limit=2_000)
        assert {each.content for each in said} == {CANARY}
        assert sorted(await noted_keys(store.database)) == sorted([OLD.key_id, NEW.key_id])
        await resealing.run(quiet)
        assert await resealing.left() == 0


async def test_p04_without_the_old_key_nothing_is_touched_and_it_is_named(tmp_path: Path, store_url: str) -> None:
    async with opened(store_url, tmp_path, OLD) as (store, _):
        await fill(store, "acme", "r1")
    with pytest.raises(VaultKeyMissing, match=OLD.key_id):
        async with opened(store_url, tmp_path, NEW):
            pass


async def test_p04_a_row_that_does_not_open_stops_it_and_stays_as_it_is(tmp_path: Path, store_url: str) -> None:
    async with opened(store_url, tmp_path, OLD) as (store, _):
        await fill(store, "acme", "r1")
        async with store.database.write() as connection:
            await connection.execute(update(runs).values(message=runs.c.answer))
    async with opened(store_url, tmp_path, NEW, OLD) as (store, resealing):
        with pytest.raises(SealBroken, match=rf"runs\.message.*{OLD.key_id}"):
            await resealing.run(quiet)
        assert sorted(await noted_keys(store.database)) == sorted([OLD.key_id, NEW.key_id])


async def test_p04_an_old_key_that_others_still_seal_with_is_not_retired(tmp_path: Path, store_url: str) -> None:
    async with (
        opened(store_url, tmp_path, OLD) as (late, _),
        opened(store_url, tmp_path, NEW, OLD) as (store, resealing),
    ):
        await fill(late, "acme", "r0")
        written = 0

        async def told(_done: int, _total: int) -> None:
            nonlocal written
            written += 1
            await late.conversations.create("acme", "ada", f"late {written}")

        with pytest.raises(Conflict, match="other processes"):
            await resealing.run(told)
        assert OLD.key_id in await noted_keys(store.database)


async def test_what_an_earlier_version_left_in_the_clear_is_read_until_it_is_sealed_and_refused_after(
    tmp_path: Path, store_url: str
) -> None:
    plain = await Store.open(store_url)
    await fill(plain, "acme", "r1")
    async with plain.database.write() as connection:
        await connection.run_sync(brought_back_to, "0130")
    await plain.close()
    async with opened(store_url, tmp_path, NEW) as (store, resealing):
        assert (await store.runs.get("r1", "acme", None)).message == CANARY
        await fill(store, "acme", "r2")
        await resealing.run(quiet)
        assert (await store.runs.get("r1", "acme", None)).message == CANARY
    async with opened(store_url, tmp_path, NEW) as (store, _):
        assert (await store.runs.get("r1", "acme", None)).message == CANARY
        async with store.database.write() as connection:
            await connection.execute(update(runs).values(message="plain"))
        with pytest.raises(VaultError):
            await store.runs.get("r1", "acme", None)
