"""The owner key of processes that have homes of their own and one database."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.owner import admit_owner
from app.services.store.keys import OwnerKeyDiffers
from app.services.store.store import Store

ONE, OTHER = "o" * 32, "p" * 32


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(store_url)
    yield opened
    await opened.close()


async def test_processes_with_the_same_key_are_one_owners_and_accept_each_others_sessions(
    store: Store, tmp_path: Path
) -> None:
    here, there = [await admit_owner(store.keys, tmp_path / name, ONE, shared=True) for name in ("a", "b")]
    assert here == there
    assert (tmp_path / "b" / "owner.key").read_text().strip() == ONE


async def test_a_process_with_another_key_does_not_start_and_shuts_nobody_out(store: Store, tmp_path: Path) -> None:
    await admit_owner(store.keys, tmp_path / "a", ONE, shared=True)
    for configured in (OTHER, None):
        with pytest.raises(OwnerKeyDiffers, match="PILOTHOUSE_OWNER_KEY"):
            await admit_owner(store.keys, tmp_path / "b", configured, shared=True)
    assert await store.keys.verify(ONE)
    assert not await store.keys.verify(OTHER)
    assert not (tmp_path / "b").exists()


async def test_a_key_in_the_home_that_was_replaced_elsewhere_does_not_come_back(store: Store, tmp_path: Path) -> None:
    _, secret = await admit_owner(store.keys, tmp_path / "a", None, shared=True)
    await store.keys.import_owner(OTHER)
    with pytest.raises(OwnerKeyDiffers):
        await admit_owner(store.keys, tmp_path / "a", None, shared=True)
    _, fresh = await admit_owner(store.keys, tmp_path / "a", OTHER, shared=True)
    assert fresh != secret  # whoever had a session under the old key logs in again


async def test_of_first_starts_at_the_same_time_with_different_keys_one_has_the_database(
    new_postgres_url: Callable[[], str], tmp_path: Path
) -> None:
    store = await Store.open(new_postgres_url())
    starts = [admit_owner(store.keys, tmp_path / f"h{n}", f"{n}" * 32, shared=True) for n in range(8)]
    results = await asyncio.gather(*starts, return_exceptions=True)
    await store.close()
    assert sum(isinstance(result, OwnerKeyDiffers) for result in results) == 7, results


async def test_a_home_with_its_own_database_takes_whatever_key_it_is_given(store: Store, tmp_path: Path) -> None:
    await admit_owner(store.keys, tmp_path, ONE, shared=False)
    await admit_owner(store.keys, tmp_path, OTHER, shared=False)
    assert not await store.keys.verify(ONE)
