"""What any engine has to do, said of DBOS on both databases and of a toy (L09: either could be replaced)."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.records import Principal
from app.services.jobs.ports import ItemEnd, JobItem, JobKind, JobWork, Ticket
from graphs.errors import Conflict, Forbidden, Invalid, Missing, UpstreamError
from tests.services.jobs.yard import ANN, Errand, Yard, open_yard

OpenYard = Callable[..., AbstractAsyncContextManager[Yard]]


@pytest.fixture(params=["toy", "dbos on sqlite", "dbos on postgresql"])
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> OpenYard:
    engine, _, database = str(request.param).partition(" on ")
    if database == "postgresql":
        url = str(request.getfixturevalue("new_postgres_url")())
    else:
        url = f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}"

    def opened(kinds: Sequence[JobKind], **options: Any) -> AbstractAsyncContextManager[Yard]:
        return open_yard(url, engine, tmp_path, kinds, **options)

    return opened


async def test_l09_jobs_are_done_called_off_and_done_again(yard: OpenYard) -> None:
    """One story an engine: opening DBOS takes a second, and these do not disturb each other."""
    away = {"left": 1}

    async def does(work: JobWork) -> Mapping[str, Any]:
        match work.state.payload["do"]:
            case "add":
                return {"sum": work.state.payload["a"] + work.state.payload["b"]}
            case "sleep":
                await asyncio.sleep(60)
            case "stumble":
                if away["left"]:
                    away["left"] -= 1
                    raise UpstreamError("the store is away")
            case "refuse":
                raise Invalid("no such thing to do")
            case "break":
                raise KeyError("not told to anybody")
        return {}

    kind = Errand(does)
    async with yard([kind]) as here:
        told = [
            {"do": "add", "a": 2, "b": 3},
            {"do": "sleep"},
            {"do": "stumble"},
            {"do": "refuse"},
            {"do": "break"},
        ]
        # The sleeper takes one of the tenant's two places; the others go through the second, one after the other.
        added, asleep, stumbled, refused, broken = [
            await here.submit(payload=payload, priority=place) for place, payload in enumerate(told, 1)
        ]
        assert added.status == "queued"
        done = await here.ended(added.job_id)
        assert (done.status, done.result, done.attempt) == ("succeeded", {"sum": 5}, 0)

        await here.until(asleep.job_id, lambda state: state.status == "running")
        assert (await here.desk.cancel("acme", None, asleep.job_id)).status == "cancelled"
        with pytest.raises(Conflict):
            await here.desk.cancel("acme", None, asleep.job_id)

        waits = await here.until(stumbled.job_id, lambda state: state.attempt == 1)
        assert waits.error is not None
        assert waits.error.code == "upstream_error"
        again = await here.ended(stumbled.job_id)
        assert (again.status, again.error, kind.begun.count(stumbled.job_id)) == ("succeeded", None, 2)

        failed = await here.ended(refused.job_id)
        assert failed.error is not None
        assert (failed.status, failed.error.code) == ("failed", "invalid_input")
        unknown = await here.ended(broken.job_id)
        assert unknown.error is not None
        assert (unknown.status, unknown.error.code) == ("failed", "internal_error")
        assert "told" not in unknown.error.message
        assert (await here.desk.state("acme", None, asleep.job_id)).status == "cancelled"
        with pytest.raises(Missing):
            await here.desk.state("umbrella", None, added.job_id)


async def test_r12_a_tenant_that_queues_much_keeps_nobody_waiting(yard: OpenYard) -> None:
    running: Counter[str] = Counter()
    peaks: Counter[str] = Counter()
    order: list[str] = []
    others_done = asyncio.Event()

    async def does(work: JobWork) -> Mapping[str, Any]:
        tenant = work.state.principal.tenant_id
        order.append(tenant)
        running[tenant] += 1
        peaks[tenant] = max(peaks[tenant], running[tenant])
        if tenant == "big":
            await others_done.wait()
        running[tenant] -= 1
        return {}

    async with yard([Errand(does)]) as here:
        big = [await here.submit(Principal("big", "bo", frozenset({"chat"}))) for _ in range(6)]
        small = [await here.submit(Principal(name, "sue", frozenset({"chat"}))) for name in ("one", "two", "three")]
        for job in small:
            await here.ended(job.job_id, job.principal.tenant_id)
        others_done.set()
        for job in big:
            await here.ended(job.job_id, "big")
    assert peaks["big"] <= 2
    assert Counter(order) == {"big": 6, "one": 1, "two": 1, "three": 1}


async def test_within_a_tenant_the_smaller_priority_comes_first_and_counts_for_no_other_tenant(yard: OpenYard) -> None:
    order: list[str] = []
    gates = {"one place": asyncio.Event(), "the other": asyncio.Event()}

    async def does(work: JobWork) -> Mapping[str, Any]:
        name = work.state.payload["name"]
        order.append(name)
        if name in gates:
            await gates[name].wait()
        return {}

    async with yard([Errand(does)]) as here:
        jobs = [await here.submit(payload={"name": name}) for name in gates]
        for job in jobs:
            await here.until(job.job_id, lambda state: state.status == "running")
        for name, priority in (("last", 300), ("first", 1), ("second", 20)):
            jobs.append(await here.submit(payload={"name": name}, priority=priority))
        sue = Principal("small", "sue", frozenset({"chat"}))
        await here.ended((await here.submit(sue, payload={"name": "another's"}, priority=1_000)).job_id, "small")
        gates["one place"].set()
        for job in jobs[2:]:
            await here.ended(job.job_id)
        gates["the other"].set()
    assert order[2:] == ["another's", "first", "second", "last"]


async def test_k05_a_ticket_that_is_carried_twice_is_performed_once(yard: OpenYard) -> None:
    async def does(_: JobWork) -> Mapping[str, Any]:
        return {}

    kind = Errand(does)
    async with yard([kind]) as here:
        job = await here.submit()
        ticket = Ticket(job.job_id, 0, "acme", 100)
        await asyncio.gather(here.engine.carry([ticket]), here.engine.carry([ticket]))
        await here.ended(job.job_id)
        await here.engine.carry([ticket])
        async with asyncio.timeout(20):
            while await here.engine.look([ticket]) != ["ended"]:
                await asyncio.sleep(0.02)
        assert await here.engine.look([Ticket("0" * 32, 0, "acme", 1)]) == [None]
        assert kind.begun == [job.job_id]
        await here.engine.forget([ticket])
        assert await here.engine.look([ticket]) == [None]


async def test_k06_a_worker_that_stops_hands_its_jobs_on_and_no_item_is_done_twice(yard: OpenYard) -> None:
    settled: list[int] = []
    go_on = asyncio.Event()

    async def does(work: JobWork) -> Mapping[str, Any]:
        async for item in work.open_items():
            if item.number == 3:
                await go_on.wait()
            settled.append(item.number)
            await work.settle([ItemEnd(item.number, {"n": item.number})])
        return dict(await work.counts())

    kind = Errand(does)
    async with yard([kind]) as here:
        job = await here.submit(items=[JobItem(f"line {n}") for n in range(5)])
        await here.until(job.job_id, lambda state: state.progress.done == 2)
    go_on.set()
    async with yard([kind]) as here:
        done = await here.ended(job.job_id)
        assert (done.status, done.result, done.progress.done) == ("succeeded", {"succeeded": 5}, 5)
    assert settled == [1, 2, 3, 4, 5]
    assert len(kind.begun) == 2


async def test_a_job_is_done_with_the_groups_that_its_owner_is_in_by_then(yard: OpenYard) -> None:
    seen = list[frozenset[str]]()

    async def check(principal: Principal) -> Principal:
        seen.append(principal.groups)
        return replace(principal, groups=frozenset({"sales"}))

    async def does(work: JobWork) -> Mapping[str, Any]:
        seen.append(work.state.principal.groups)
        return {}

    async with yard([Errand(does)], check=check) as here:
        job = await here.submit(replace(ANN, groups=frozenset({"payroll"})))
        assert (await here.ended(job.job_id)).status == "succeeded"
    assert seen == [{"payroll"}, {"sales"}]


async def test_a11_a_job_is_not_begun_for_a_key_that_was_revoked_while_it_waited(yard: OpenYard) -> None:
    revoked: set[str] = set()

    async def check(principal: Principal) -> Principal:
        if principal.key_id in revoked:
            raise Forbidden("this key is revoked")
        return principal

    async def does(_: JobWork) -> Mapping[str, Any]:
        return {}

    kind = Errand(does)
    async with yard([kind], check=check, keeping=False) as here:
        job = await here.submit()
        revoked.add(ANN.key_id)
        await here.keeper.turn()
        done = await here.ended(job.job_id)
        assert done.error is not None
        assert (done.status, done.error.code) == ("failed", "forbidden")
    assert kind.begun == []
