"""What lies in the jobs' tables when contents are sealed: nothing of what a job was given or came to."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from app.checkpoints import checkpointer
from app.resealing import Resealing
from app.sealing import new_key
from app.services.jobs.desk import JobDesk
from app.services.jobs.follow import follow
from app.services.jobs.ports import ItemEnd, JobFailure, JobItem, JobRequest
from app.services.jobs.shelf import Claim, Shelf
from app.services.jobs.tables import job_items, jobs
from app.services.jobs.work import Work
from app.services.keyring import Keyring
from app.services.store.store import Store
from app.services.vault import SealBroken, Unsealed, Vault
from tests.services.jobs.yard import ANN, Errand

CANARY = "canary-5105-1051"
FILE = f"{CANARY} ".encode() * 400  # long enough to be deflated
KEY, NEXT_KEY = new_key(), new_key()
BROKEN = JobFailure("invalid", "document_unreadable", CANARY)


@pytest.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(store_url, vault=Vault(Keyring([KEY])))
    yield opened
    await opened.close()


def desk_of(store: Store) -> JobDesk:
    return JobDesk(store.database, [Errand(lambda work: pytest.fail("nobody performs"))], vet_callback=lambda _: None)


async def broken_job(store: Store) -> tuple[str, Claim]:
    """A job that was told the canary everywhere and failed with it in half of its items."""
    items = [
        JobItem(f"item{n}", {"message": CANARY, "allowGroups": ["deck"] if n == 1 else None}, FILE) for n in (1, 2, 3)
    ]
    url = f"https://example.org/{CANARY}"
    asked = JobRequest(ANN, "errand", {"collection": CANARY}, items, callback_url=url)
    shelf, job = Shelf(store.database), await desk_of(store).submit(asked)
    claim = await shelf.claim(job.job_id, 0)
    assert claim is not None
    work = Work(store.database, claim.state, claim.fence)
    await work.note({2: {"said": CANARY}}, "parse")
    await work.settle([ItemEnd(1, error=BROKEN), ItemEnd(3, {"answer": CANARY})])
    await shelf.end(claim, "failed", result={"failed": [CANARY]}, error=BROKEN)
    return job.job_id, claim


async def everything(store: Store) -> str:
    async with store.database.read() as connection:
        found = [tuple(row) for table in (jobs, job_items) for row in await connection.execute(select(table))]
    return str(found)


async def change(store: Store, statement: Any) -> None:
    async with store.database.write() as connection:
        await connection.execute(statement)


async def test_p01_a_job_lies_sealed_and_is_told_to_whom_it_is_as_it_was(store: Store) -> None:
    job_id, _ = await broken_job(store)
    assert CANARY not in await everything(store)
    desk = desk_of(store)
    job = await desk.state("acme", "ann", job_id)
    assert (job.payload, job.error, job.result) == ({"collection": CANARY}, BROKEN, {"failed": [CANARY]})
    first, second, third = await desk.items(job_id, 10)
    assert (first.error, first.allow_groups, first.content) == (BROKEN, ("deck",), None)
    assert second.result == {"said": CANARY}
    assert (third.result, third.input, third.allow_groups) == ({"answer": CANARY}, {}, ())
    (news,) = [news async for news in follow(store.database, job_id)]
    assert [(item.number, item.allow_groups) for item in news.items] == [(1, ("deck",)), (2, ()), (3, ())]
    (told,), _ = await desk.page("acme", "ann", 10, None, kind="webhook")
    assert told.payload["url"].endswith(CANARY)


async def test_p01_what_is_asked_for_again_is_sealed_for_its_new_job(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.jobs.again.BYTES_AT_ONCE", 1)
    job_id, _ = await broken_job(store)
    again = await desk_of(store).again(ANN, await desk_of(store).state("acme", "ann", job_id))
    assert (again.progress.total, again.payload) == (2, {"collection": CANARY})
    assert CANARY not in await everything(store)
    claim = await Shelf(store.database).claim(again.job_id, 0)
    assert claim is not None
    given = [item async for item in Work(store.database, claim.state, claim.fence).open_items()]
    assert [(item.number, item.name, item.content) for item in given] == [(1, "item1", FILE), (2, "item2", FILE)]
    assert [(item.input["message"], item.allow_groups) for item in given] == [(CANARY, ("deck",)), (CANARY, ())]


async def test_whom_a_document_is_for_stays_with_a_job_that_was_called_off(store: Store) -> None:
    items = [JobItem("a", {"message": CANARY, "allowGroups": ["deck"]}, FILE)]
    job = await desk_of(store).submit(JobRequest(ANN, "errand", items=items))
    await desk_of(store).cancel("acme", "ann", job.job_id)
    (kept,) = await desk_of(store).items(job.job_id, 10)
    assert (kept.input, kept.allow_groups) == ({}, ("deck",))


async def test_p03_an_item_moved_to_another_place_or_put_there_in_the_clear_is_not_read(store: Store) -> None:
    job_id, _ = await broken_job(store)
    mine = job_items.c.job_id == job_id
    second = select(job_items.c.input).where(mine, job_items.c.number == 2).scalar_subquery()
    await change(store, update(job_items).where(mine, job_items.c.number == 1).values(input=second))
    with pytest.raises(SealBroken):
        await desk_of(store).items(job_id, 10)
    await change(store, update(job_items).where(mine).values(input={"message": "another"}))
    with pytest.raises(Unsealed):
        await desk_of(store).items(job_id, 10)


async def test_p04_jobs_in_the_clear_or_under_an_earlier_key_come_under_the_one_that_seals_now(
    tmp_path: Path, store_url: str
) -> None:
    for vault in (None, Vault(Keyring([KEY]))):
        before = await Store.open(store_url, vault=vault)
        job_id, _ = await broken_job(before)
        await before.close()
    vault = Vault(Keyring([NEXT_KEY, KEY]))
    store = await Store.open(store_url, vault=vault)
    vault.accepts_plain = True

    async def quiet(_done: int, _total: int) -> None: ...

    async with checkpointer(store_url, tmp_path / "checkpoints.db", vault) as saver:
        done = await Resealing(store.database, saver, vault).run(quiet)
    await store.close()
    assert done.rows == 2 * (3 + 2), "two jobs, of three items each, and their deliveries"
    store = await Store.open(store_url, vault=Vault(Keyring([NEXT_KEY])))
    assert CANARY not in await everything(store)
    again = await desk_of(store).again(ANN, await desk_of(store).state("acme", "ann", job_id))
    claim = await Shelf(store.database).claim(again.job_id, 0)
    assert claim is not None
    given = [item async for item in Work(store.database, claim.state, claim.fence).open_items()]
    assert [item.content for item in given] == [FILE, FILE]
    await store.close()
