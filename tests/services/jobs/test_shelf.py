"""Jobs in their tables: of two who act at once one finds nothing to change."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.records import Principal
from app.services.jobs.desk import JobDesk
from app.services.jobs.executors import Executors
from app.services.jobs.keeper import Keeper
from app.services.jobs.ports import Carriage, ItemEnd, JobFailure, JobItem, JobRequest, JobWork, Ticket
from app.services.jobs.shelf import Shelf
from app.services.jobs.work import Overtaken, Work
from app.services.jobs.worker import MAX_FAILURES, Worker
from app.services.store.store import Store
from graphs.errors import Conflict, Forbidden, Invalid
from tests.services.jobs.yard import ANN, Errand, anybody


@dataclass
class Clock:
    now: datetime = field(default_factory=lambda: datetime(2026, 11, 25, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def monotonic(self) -> float:
        return self.now.timestamp()

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Told:
    """An engine that says what it is told to, and remembers what it was handed."""

    says: Carriage | None = None
    carried: list[Ticket] = field(default_factory=list)
    forgotten: list[Ticket] = field(default_factory=list)

    async def carry(self, tickets: list[Ticket]) -> None:
        self.carried += tickets

    async def look(self, tickets: list[Ticket]) -> list[Carriage | None]:
        return [self.says for _ in tickets]

    async def holders(self) -> frozenset[str]:
        return frozenset()

    async def recover(self, executor_id: str) -> int:
        return 0

    async def let_go(self) -> int:
        return 0

    async def forget(self, tickets: list[Ticket]) -> None:
        self.forgotten += tickets


@dataclass
class Bench:
    store: Store
    desk: JobDesk
    shelf: Shelf
    worker: Worker
    engine: Told
    keeper: Keeper
    clock: Clock


async def does(work: JobWork) -> Mapping[str, Any]:
    match work.state.payload.get("do"):
        case "fill the disk":
            raise OSError(28, "No space left on device")
    return {}


@pytest.fixture
async def bench(store_url: str) -> AsyncIterator[Bench]:
    clock = Clock()
    store = await Store.open(store_url, clock)
    shelf, desk = Shelf(store.database), JobDesk(store.database, [Errand(does)])
    worker, engine = Worker(shelf, desk.kinds, anybody), Told()
    executors = Executors(store.database, "me", monotonic=clock.monotonic)
    keeper = Keeper(shelf, engine, executors, worker, poll_s=1, retention_s=86_400, monotonic=clock.monotonic)
    yield Bench(store, desk, shelf, worker, engine, keeper, clock)
    await store.close()


def request(**options: Any) -> JobRequest:
    return JobRequest(ANN, "errand", **options)


class Watched(Mapping[str, Any]):
    """What an item is given; notes by which threads it was copied."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self._given, self.threads = given, set[int]()

    def __getitem__(self, key: str) -> Any:
        self.threads.add(threading.get_ident())
        return self._given[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._given)

    def __len__(self) -> int:
        return len(self._given)


async def test_k08_the_items_of_a_large_job_are_made_into_rows_beside_the_loop(bench: Bench) -> None:
    given = Watched({"message": "hello"})
    job = await bench.desk.submit(request(items=[JobItem("one", given)]))
    assert given.threads
    assert threading.get_ident() not in given.threads
    assert [item.input for item in await bench.desk.items(job.job_id, 10)] == [{"message": "hello"}]


async def test_k04_a_worker_that_was_overtaken_changes_nothing_any_more(bench: Bench) -> None:
    job = await bench.desk.submit(request(items=[JobItem("one", content=b"long")]))
    slow = await bench.shelf.claim(job.job_id, 0)
    quick = await bench.shelf.claim(job.job_id, 0)
    assert slow is not None
    assert quick is not None
    zombie = Work(bench.store.database, slow.state, slow.fence)
    for word in (zombie.begin(1, "run"), zombie.settle([ItemEnd(1)]), zombie.progress(job.progress)):
        with pytest.raises(Overtaken):
            await word
    assert await bench.shelf.overtaken({job.job_id: slow.fence}) == [job.job_id]
    assert await bench.shelf.overtaken({job.job_id: quick.fence}) == []
    assert not await bench.shelf.end(slow, "failed")
    assert not await bench.shelf.put_back(slow, pause_s=0)
    living = Work(bench.store.database, quick.state, quick.fence)
    await living.settle([ItemEnd(1, {"n": 1})])
    await living.settle([ItemEnd(1, {"n": 2})])
    assert [item async for item in living.open_items()] == []
    assert await bench.shelf.end(quick, "succeeded", result={})
    done = await bench.desk.state("acme", "ann", job.job_id)
    assert (done.status, done.progress.done) == ("succeeded", 1)
    assert (await bench.desk.items(job.job_id, 10))[0].result == {"n": 1}
    assert await bench.shelf.claim(job.job_id, 0) is None


async def test_p06_p07_an_idempotency_key_names_one_job_of_its_user(bench: Bench) -> None:
    asked = request(idempotency_key="k", items=[JobItem("one", {"a": 1}, b"x")])
    found = await asyncio.gather(*(bench.desk.submit(asked) for _ in range(8)))
    assert len({job.job_id for job in found}) == 1
    assert len(await bench.desk.items(found[0].job_id, 10)) == 1
    with pytest.raises(Conflict):
        await bench.desk.submit(request(idempotency_key="k", items=[JobItem("one", {"a": 1}, b"y")]))
    bob = Principal("acme", "bob", frozenset({"chat"}), "key-2")
    assert (await bench.desk.submit(JobRequest(bob, "errand", idempotency_key="k"))).job_id != found[0].job_id


async def test_a19_what_the_kind_needs_is_asked_of_who_submits(bench: Bench) -> None:
    with pytest.raises(Forbidden):
        await bench.desk.submit(JobRequest(Principal("acme", "ann", frozenset({"runs"})), "errand"))
    with pytest.raises(Invalid):
        await bench.desk.submit(JobRequest(ANN, "conquest"))


async def test_d03_a_job_that_met_a_full_disk_is_attempted_again_with_longer_pauses_and_not_for_ever(
    bench: Bench,
) -> None:
    job = await bench.desk.submit(request(payload={"do": "fill the disk"}))
    for attempt in range(MAX_FAILURES):
        assert len(await bench.shelf.due()) == 1
        await bench.worker.perform(job.job_id, attempt)
        bench.clock.forward(min(2 * 2**attempt, 300) - 0.5)
        assert await bench.shelf.due() == []
        bench.clock.forward(1)
    done = await bench.desk.state("acme", None, job.job_id)
    assert done.error is not None
    assert (done.status, done.error.code, done.attempt) == ("failed", "io_error", MAX_FAILURES - 1)


async def test_k07_a_job_that_the_engine_gave_up_ends_visibly(bench: Bench) -> None:
    job = await bench.desk.submit(request())
    await bench.keeper.turn()
    assert bench.engine.carried == [Ticket(job.job_id, 0, "acme", 100)]
    bench.engine.says = "given_up"
    bench.clock.forward(61)
    await bench.keeper.turn()
    done = await bench.desk.state("acme", None, job.job_id)
    assert done.error is not None
    assert (done.status, done.error.code) == ("failed", "job_given_up")


async def test_an_attempt_that_the_engine_ended_without_the_jobs_end_is_made_again(bench: Bench) -> None:
    job = await bench.desk.submit(request())
    bench.engine.says = "ended"
    await bench.keeper.turn()
    bench.engine.says = None
    assert bench.engine.carried == []
    bench.clock.forward(3)
    await bench.keeper.turn()
    assert bench.engine.carried == [Ticket(job.job_id, 1, "acme", 100)]


async def test_ended_jobs_are_forgotten_after_their_time_with_every_attempt(bench: Bench) -> None:
    old = await bench.desk.submit(request(items=[JobItem("one")]))
    await bench.desk.cancel("acme", None, old.job_id)
    bench.clock.forward(86_400 + 1)
    waits = await bench.desk.submit(request())
    await bench.keeper.sweep()
    assert [ticket.job_id for ticket in bench.engine.forgotten] == [old.job_id]
    assert [job.job_id for job in (await bench.desk.page("acme", None, 10, None))[0]] == [waits.job_id]
    assert await bench.desk.items(old.job_id, 10) == []


async def test_a_tenants_ended_jobs_are_kept_for_its_own_time(bench: Bench) -> None:
    engine: Any = bench.engine
    keeper = Keeper(
        bench.shelf,
        engine,
        Executors(bench.store.database, "me"),
        bench.worker,
        poll_s=1,
        retention_s=86_400,
        retention_of_tenants_s={"acme": 60.0},
    )
    others = Principal("globex", "bob", frozenset({"chat"}), "k")
    jobs = [await bench.desk.submit(JobRequest(who, "errand")) for who in (ANN, others)]
    for job in jobs:
        await bench.desk.cancel(job.principal.tenant_id, None, job.job_id)
    bench.clock.forward(61)
    assert await keeper.sweep() == 1
    assert [ticket.job_id for ticket in bench.engine.forgotten] == [jobs[0].job_id]
    bench.clock.forward(86_400)
    assert await keeper.sweep() == 1


async def test_k12_the_living_are_told_from_the_dead_by_their_beats_and_no_clock_is_compared(bench: Bench) -> None:
    others = [Executors(bench.store.database, name, monotonic=bench.clock.monotonic) for name in ("one", "two")]
    looker = Executors(bench.store.database, "me", monotonic=bench.clock.monotonic)
    for each in (*others, looker):
        await each.beat()
    assert await looker.living() == {"me", "one", "two"}
    bench.clock.forward(19)
    await others[0].beat()
    assert await looker.living() == {"me", "one", "two"}
    bench.clock.forward(2)
    assert await looker.living() == {"me", "one"}
    await others[1].beat()  # it only stood still
    assert await looker.living() == {"me", "one", "two"}
    await others[0].leave()
    assert await looker.living() == {"me", "two"}


async def test_what_failed_is_asked_for_again_with_its_content_and_what_succeeded_is_not(bench: Bench) -> None:
    parts = [JobItem("good", {"a": 1}, b"x"), JobItem("bad", {"b": 2}, b"y"), JobItem("worse", {}, b"z")]
    job = await bench.desk.submit(request(payload={"p": 1}, items=parts, priority=7))
    claim = await bench.shelf.claim(job.job_id, 0)
    assert claim is not None
    work = Work(bench.store.database, claim.state, claim.fence)
    await work.note({1: {"tookMs": {"parse": 2.5}}}, "parse")
    (noted,) = await bench.desk.items(job.job_id, 10, status="begun")
    assert (noted.name, noted.result) == ("good", {"tookMs": {"parse": 2.5}})
    assert (await bench.desk.state("acme", "ann", job.job_id)).progress.stage == "parse"
    assert await bench.desk.begun() == frozenset()
    broken = JobFailure("invalid", "bad", "It is bad.")
    await work.settle([ItemEnd(1, {"n": 1}), ItemEnd(2, error=broken), ItemEnd(3, error=broken)])
    (good,) = await bench.desk.items(job.job_id, 10, status="succeeded")
    assert (good.input, good.content) == ({}, None)  # it is where it was brought to, and is erased there
    with pytest.raises(Conflict, match="running"):
        await bench.desk.again(ANN, await bench.desk.state("acme", "ann", job.job_id))
    await bench.shelf.end(claim, "succeeded", result={})
    ended = await bench.desk.state("acme", "ann", job.job_id)

    again = await bench.desk.again(ANN, ended)
    assert (again.kind, again.payload, again.priority, again.status) == ("errand", {"p": 1}, 7, "queued")
    assert (again.progress.total, again.job_id != job.job_id) == (2, True)
    claim = await bench.shelf.claim(again.job_id, 0)
    assert claim is not None
    left = [item async for item in Work(bench.store.database, claim.state, claim.fence).open_items()]
    assert [(item.number, item.name, item.input, item.content) for item in left] == [
        (1, "bad", {"b": 2}, b"y"),
        (2, "worse", {}, b"z"),
    ]
    alone = await bench.desk.again(ANN, ended, [3])
    assert [item.name for item in await bench.desk.items(alone.job_id, 10)] == ["worse"]
    for nothing in ([1], [99]):
        with pytest.raises(Conflict, match="nothing"):
            await bench.desk.again(ANN, ended, nothing)
    with pytest.raises(Forbidden):
        await bench.desk.again(replace(ANN, scopes=frozenset()), ended)


async def test_a_job_that_was_called_off_keeps_no_contents_and_is_not_asked_for_again(bench: Bench) -> None:
    job = await bench.desk.submit(request(items=[JobItem("one", {"message": "private"}, b"long")]))
    off = await bench.desk.cancel("acme", "ann", job.job_id)
    (left,) = await bench.desk.items(job.job_id, 10)
    assert (left.input, left.content) == ({}, None)
    with pytest.raises(Conflict, match="cancelled"):
        await bench.desk.again(ANN, off)
