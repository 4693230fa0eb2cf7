"""A run is driven by one process: of many that would take it, the database lets one."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from app.services.store.store import Store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RUNS = tuple(f"run-{number}" for number in range(8))


@pytest.fixture
async def two(store_url: str) -> AsyncIterator[tuple[Store, Store]]:
    """The store as two processes have it, each with its own connections."""
    first, second = await Store.open(store_url), await Store.open(store_url)
    yield first, second
    await first.close()
    await second.close()


async def start(store: Store, run_id: str, process_id: str) -> None:
    conversation = await store.conversations.create("a", "u", "title")
    await store.runs.start(
        run_id, "a", "u", conversation.conversation_id, "chat", "hi", "api", "", NOW, process_id=process_id
    )


async def holders(store: Store) -> dict[str, str]:
    return {lease.run_id: lease.process_id for lease in await store.leases.held()}


@pytest.mark.parametrize("holder", ["", "dead"], ids=["nobody drives", "a dead process drove"])
async def test_of_two_processes_that_take_a_run_at_once_one_gets_it(two: tuple[Store, Store], holder: str) -> None:
    for run_id in RUNS:
        await start(two[0], run_id, holder)

    async def race(run_id: str) -> tuple[bool, bool]:
        first, second = (
            store.leases.take(run_id, process_id, after=holder) for store, process_id in zip(two, "xy", strict=True)
        )
        return await asyncio.gather(first, second)

    won = dict(zip(RUNS, await asyncio.gather(*(race(run_id) for run_id in RUNS)), strict=True))
    assert {sorted(each) == [False, True] for each in won.values()} == {True}, won
    assert await holders(two[0]) == {run_id: "x" if first else "y" for run_id, (first, _) in won.items()}


async def test_a_run_that_another_has_taken_since_is_not_taken_after_its_former_holder(
    two: tuple[Store, Store],
) -> None:
    await start(two[0], "run", "dead")
    assert await two[0].leases.take("run", "x", after="dead")
    assert not await two[1].leases.take("run", "y", after="dead")
    assert await holders(two[1]) == {"run": "x"}
