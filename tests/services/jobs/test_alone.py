"""What a job has for itself: one holder among all workers, and a lease that is worth what the job's fence is."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.services.jobs.desk import JobDesk
from app.services.jobs.ports import Busy, JobRequest
from app.services.jobs.shelf import Shelf
from app.services.jobs.work import Overtaken, Work
from app.services.store.store import Store
from tests.services.jobs.yard import ANN, Errand


@pytest.fixture(params=["sqlite", "postgresql"])
async def stores(
    request: pytest.FixtureRequest, tmp_path: Path, new_postgres_url: Callable[[], str]
) -> AsyncIterator[tuple[Store, Store]]:
    """The database as two processes have it open."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}" if request.param == "sqlite" else new_postgres_url()
    async with AsyncExitStack() as stack:
        made = [await Store.open(url) for _ in range(2)]
        for store in made:
            stack.push_async_callback(store.close)
        yield made[0], made[1]


async def never(_: object) -> dict[str, object]:
    raise AssertionError("nobody performs jobs here")


async def begun(store: Store) -> Work:
    """A new job in the hands of a worker of that process."""
    job = await JobDesk(store.database, [Errand(never)]).submit(JobRequest(ANN, "errand"))
    return await taken(store, job.job_id)


async def taken(store: Store, job_id: str) -> Work:
    claim = await Shelf(store.database).claim(job_id, 0)
    assert claim is not None
    return Work(store.database, claim.state, claim.fence)


async def test_of_two_jobs_in_two_processes_one_has_it_and_the_other_waits(stores: tuple[Store, Store]) -> None:
    one, other = await begun(stores[0]), await begun(stores[1])
    order = []

    async def follow() -> None:
        async with other.alone("notes"):
            order.append("other")

    async with one.alone("notes"):
        with pytest.raises(Busy):
            async with other.alone("notes", wait=False):
                raise AssertionError
        async with other.alone("letters", wait=False):
            order.append("something else")
        following = asyncio.create_task(follow())
        await asyncio.sleep(0.05)
        order.append("one")
    await following
    assert order == ["something else", "one", "other"]


async def test_k03_a_lease_of_a_killed_worker_is_free_once_its_job_is_elsewhere_or_over(
    stores: tuple[Store, Store],
) -> None:
    dead, living = await begun(stores[0]), await begun(stores[1])
    held = dead.alone("notes")
    await held.__aenter__()  # and its process is killed here
    with pytest.raises(Busy):
        async with living.alone("notes", wait=False):
            raise AssertionError
    again = await taken(stores[1], dead.state.job_id)
    async with again.alone("notes", wait=False):
        with pytest.raises(Busy):
            async with living.alone("notes", wait=False):
                raise AssertionError
        await JobDesk(stores[1].database, []).cancel("acme", None, dead.state.job_id)
        async with living.alone("notes", wait=False):
            pass


async def test_k04_a_worker_that_wakes_up_takes_nothing_and_gives_nothing_away(stores: tuple[Store, Store]) -> None:
    frozen = await begun(stores[0])
    held = frozen.alone("notes")
    await held.__aenter__()
    again = await taken(stores[1], frozen.state.job_id)
    async with again.alone("notes", wait=False):
        await held.__aexit__(None, None, None)
        with pytest.raises(Busy):
            async with (await begun(stores[0])).alone("notes", wait=False):
                raise AssertionError
        with pytest.raises(Overtaken):
            async with frozen.alone("letters"):
                raise AssertionError
