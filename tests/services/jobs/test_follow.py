"""Following a job: nothing of it is missed or told twice, whoever performs it and in whatever order."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from app.services.jobs.desk import JobDesk
from app.services.jobs.follow import follow
from app.services.jobs.ports import ItemEnd, JobFailure, JobItem, JobRequest, News
from app.services.jobs.shelf import Claim, Shelf
from app.services.jobs.work import Work
from app.services.store.store import Store
from graphs.errors import Missing
from tests.services.jobs.yard import ANN, Errand

BROKEN = JobFailure("invalid", "document_unreadable", "it is empty")


@dataclass
class Held:
    """A job of four items in the hands of a worker."""

    store: Store
    shelf: Shelf
    work: Work
    claim: Claim

    @property
    def job_id(self) -> str:
        return self.work.state.job_id

    async def settle(self, *numbers: int) -> None:
        await self.work.settle([ItemEnd(number, {"n": number}) for number in numbers])


@pytest.fixture
async def held(store_url: str) -> AsyncIterator[Held]:
    store = await Store.open(store_url)
    items = [JobItem(name, content=b"long") for name in "abcd"]
    desk = JobDesk(store.database, [Errand(lambda work: pytest.fail("nobody performs"))])
    job = await desk.submit(JobRequest(ANN, "errand", items=items))
    shelf = Shelf(store.database)
    claim = await shelf.claim(job.job_id, 0)
    assert claim is not None
    yield Held(store, shelf, Work(store.database, claim.state, claim.fence), claim)
    await store.close()


def told(news: News) -> list[tuple[int, str]]:
    return [(item.number, item.status) for item in news.items]


async def test_each_step_of_each_item_is_told_once_until_the_job_has_ended(held: Held) -> None:
    async with aclosing(follow(held.store.database, held.job_id, first_pause_s=0.01)) as looks:
        first = await anext(looks)
        assert (first.state.status, told(first), first.through) == ("running", [], 0)
        await held.work.begin(1, "run-1")
        assert [item.ref for item in (await anext(looks)).items] == ["run-1"]
        await held.work.note({1: {"tookMs": {"parse": 3.0}}, 2: {"tookMs": {"parse": 4.0}}}, "parse")
        noted = await anext(looks)
        assert (noted.state.progress.stage, told(noted)) == ("parse", [(1, "begun"), (2, "begun")])
        await held.work.note({2: {"tookMs": {"parse": 4.0, "embed": 9.0}}}, "parse")
        assert told(await anext(looks)) == [(2, "begun")]
        await held.work.settle([ItemEnd(1, error=BROKEN)])
        broken = await anext(looks)
        assert (told(broken), broken.items[0].error, broken.through) == ([(1, "failed")], BROKEN, 1)
        await held.settle(2, 3, 4)
        await held.shelf.end(held.claim, "succeeded", result={})
        last = await anext(looks)
        assert (last.state.status, told(last), last.through) == (
            "succeeded",
            [(2, "succeeded"), (3, "succeeded"), (4, "succeeded")],
            4,
        )
        assert [news async for news in looks] == []


async def test_k01_whoever_comes_back_behind_a_number_misses_nothing_that_is_settled_out_of_order(held: Held) -> None:
    async with aclosing(follow(held.store.database, held.job_id, first_pause_s=0.01)) as looks:
        await held.settle(1, 3)
        before = await anext(looks)
        assert (told(before), before.through) == ([(1, "succeeded"), (3, "succeeded")], 1)
        await held.settle(2)
        assert (told(news := await anext(looks)), news.through) == ([(2, "succeeded")], 3)
    async with aclosing(follow(held.store.database, held.job_id, before.through, first_pause_s=0.01)) as looks:
        assert told(await anext(looks)) == [(2, "succeeded"), (3, "succeeded")]
        await held.settle(4)
        assert told(await anext(looks)) == [(4, "succeeded")]


async def test_what_a_second_worker_does_is_told_and_a_job_that_is_forgotten_ends_the_looks(held: Held) -> None:
    async with aclosing(follow(held.store.database, held.job_id, first_pause_s=0.01)) as looks:
        await held.settle(1)
        await anext(looks)
        await held.shelf.put_back(held.claim, pause_s=0)
        assert (await anext(looks)).state.status == "queued"
        claim = await held.shelf.claim(held.job_id, 1)
        assert claim is not None
        again = await anext(looks)
        assert (again.state.status, again.state.attempt, again.state.progress.done) == ("running", 1, 1)
        await Work(held.store.database, claim.state, claim.fence).settle([ItemEnd(2)])
        assert told(await anext(looks)) == [(2, "succeeded")]
        await held.shelf.end(claim, "succeeded", result={})
        await held.shelf.forget([held.job_id])
        with pytest.raises(Missing):
            await anext(looks)
