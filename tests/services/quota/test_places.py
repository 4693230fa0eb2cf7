"""Places for what runs at once: exact, fair across tenants, shared by processes, given back whatever happens."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.services.quota.leases import Leases
from app.services.quota.places import Place, Places, Room
from app.services.quota.refusals import QueueFull
from tests.redis_server import redis_server


def places(at_once: int = 100, *, length: int = 1_000, wait_s: float = 5.0, leases: Leases | None = None) -> Places:
    return Places(at_once=at_once, queue_length=length, queue_wait_s=wait_s, leases=leases)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_no_more_than_its_places_run_and_the_next_waits_for_one() -> None:
    here, room = places(), [Room("a", 2)]
    first, _ = await here.enter("a", room), await here.enter("a", room)
    waiting = asyncio.create_task(here.enter("a", room))
    await settle()
    assert (here.running, here.waiting, waiting.done()) == (2, 1, False)
    first.leave()
    first.leave()  # twice changes nothing
    await waiting
    assert (here.running, here.waiting) == (2, 0)


async def test_r12_a_tenant_with_a_long_queue_keeps_nobody_out() -> None:
    here, order = places(at_once=2), []

    async def work(tenant: str) -> None:
        place = await here.enter(tenant, [])
        order.append(tenant)
        await asyncio.sleep(0)
        place.leave()

    crowd = [asyncio.create_task(work("big")) for _ in range(200)]
    await settle()
    small = [asyncio.create_task(work(name)) for name in ("s1", "s2", "s3")]
    await asyncio.gather(*crowd, *small)
    begun = {name: order.index(name) for name in ("s1", "s2", "s3")}
    assert max(begun.values()) < 40, begun
    assert (here.running, here.waiting, here.by_tenant()) == (0, 0, {})


async def test_a_full_user_does_not_hold_up_the_others_of_its_tenant() -> None:
    here = places()
    ann, bob = [Room("t", 10), Room("ann", 1)], [Room("t", 10), Room("bob", 1)]
    held = await here.enter("t", ann)
    waiting = asyncio.create_task(here.enter("t", ann))
    await settle()
    await asyncio.wait_for(here.enter("t", bob), 1)
    assert not waiting.done()
    held.leave()
    await asyncio.wait_for(waiting, 1)


async def test_who_waits_too_long_or_finds_the_queue_full_is_told_when_to_come_back() -> None:
    here = places(at_once=1, length=1, wait_s=0.05)
    place = await here.enter("a", [])
    waiting = asyncio.create_task(here.enter("a", []))
    await settle()
    with pytest.raises(QueueFull) as refused:
        await here.enter("b", [])
    assert refused.value.retry_after_s
    with pytest.raises(QueueFull):
        await waiting
    place.leave()
    assert (here.running, here.waiting) == (0, 0)


async def test_a_caller_that_gives_up_leaves_no_place_taken() -> None:
    here = places(at_once=1)
    place = await here.enter("a", [])
    waiters = [asyncio.create_task(here.enter("a", [])) for _ in range(20)]
    await settle()
    place.leave()  # grants one of them in the same moment in which all are cancelled
    for waiter in waiters:
        waiter.cancel()
    await asyncio.gather(*waiters, return_exceptions=True)
    assert (here.running, here.waiting) == (0, 0)
    (await here.enter("b", [])).leave()


async def test_two_processes_share_the_places_of_a_scope(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        clients = [Redis(unix_socket_path=server.path, socket_timeout=2) for _ in range(2)]
        one, other = (places(leases=Leases(client), wait_s=0.2) for client in clients)
        room = [Room("{a}:places", 3)]
        taken: list[Place] = [await one.enter("a", room), await one.enter("a", room), await other.enter("a", room)]
        with pytest.raises(QueueFull):
            await other.enter("a", room)
        waiting = asyncio.create_task(other.enter("a", room))
        await asyncio.sleep(0.01)
        taken[0].leave()
        taken.append(await waiting)
        for place in taken:
            place.leave()
        assert (one.running, other.running) == (0, 0)
        for client in clients:
            await client.aclose()


async def test_the_places_of_a_killed_process_come_free_and_those_of_a_living_one_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.quota.leases.LEASE_S", 0.4)
    monkeypatch.setattr("app.services.quota.leases.RENEW_S", 0.1)
    with redis_server(tmp_path) as server:
        client: Redis = Redis(unix_socket_path=server.path, socket_timeout=2)
        living, killed = Leases(client), Leases(client)
        keeping = asyncio.create_task(living.keep())
        assert await living.take([("{a}:x", 2)])
        assert await killed.take([("{a}:x", 2)])
        assert await living.take([("{a}:x", 2)]) is None
        await asyncio.sleep(0.6)
        assert await living.take([("{a}:x", 2)])  # the killed one's
        assert await living.take([("{a}:x", 2)]) is None
        keeping.cancel()
        await asyncio.wait({keeping})
        await living.close()
        await client.aclose()


async def test_r10_without_redis_every_process_counts_its_own_places(tmp_path: Path) -> None:
    gone: Redis = Redis(unix_socket_path=str(tmp_path / "nobody"), socket_timeout=0.1)
    here = places(leases=Leases(gone), wait_s=0.05)
    room = [Room("{a}:places", 1)]
    place = await here.enter("a", room)
    with pytest.raises(QueueFull):
        await here.enter("a", room)
    place.leave()
    (await here.enter("a", room)).leave()
    await gone.aclose()


async def test_renewing_ends_though_the_client_swallows_the_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    class Swallowing:
        def register_script(self, script: str) -> "Swallowing":
            return self

        async def __call__(self, **_: object) -> int:
            with suppress(asyncio.CancelledError):  # as asyncio.wait_for does where its future has just been done
                await asyncio.sleep(10)
            return 1

    monkeypatch.setattr("app.services.quota.leases.RENEW_S", 0)
    leases = Leases(Swallowing())  # type: ignore[arg-type]
    leases._held["x"] = ("k",)
    keeping = asyncio.create_task(leases.keep())
    await settle()
    keeping.cancel()
    done, _ = await asyncio.wait({keeping}, timeout=5)
    assert done
