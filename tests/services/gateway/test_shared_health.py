"""Two processes with a real Redis between them, and without it."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.shared_health import KEY, SharedHealth
from tests.redis_server import RedisServer, redis_server

NOW = 1_000.0


@dataclass
class Process:
    """One of them: a clock that stands still, a breaker for each of two models."""

    health: SharedHealth
    breakers: dict[str, Breaker]

    def state(self, name: str = "a") -> str:
        return self.breakers[name].state(NOW)

    def fails(self, name: str = "a") -> None:
        self.breakers[name].fail(0, NOW)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(Path(tmp_path_factory.mktemp("redis"))) as running:
        yield running


@asynccontextmanager
async def process(server: RedisServer, *, decode: bool = False, wait_s: float = 5.0) -> AsyncIterator[Process]:
    breakers = {name: Breaker(BreakerPolicy(min_calls=1, open_s=5), jitter=lambda: 0.0) for name in ("a", "org/b:1")}
    # Without the client's own retries, which would only slow the tests down: the exchange tries again by itself.
    redis = Redis(unix_socket_path=server.path, decode_responses=decode, retry=Retry(NoBackoff(), 0))
    health = SharedHealth(redis, breakers, monotonic=lambda: NOW, every_s=0.01, wait_s=wait_s)
    try:
        yield Process(health, breakers)
    finally:
        await health.close()
        await redis.aclose()


@pytest.mark.parametrize("decode", [False, True])
async def test_a_breaker_that_opens_in_one_process_is_open_in_the_other(server: RedisServer, decode: bool) -> None:
    async with process(server) as here, process(server, decode=decode) as there:
        here.fails("org/b:1")
        await here.health.exchange()
        await there.health.exchange()
        assert (there.state("org/b:1"), there.state("a")) == ("open", "closed")
        assert 4 < there.breakers["org/b:1"].wait_s(NOW) <= 5


async def test_a_cool_down_is_shared_too_and_opens_nothing(server: RedisServer) -> None:
    async with process(server) as here, process(server) as there:
        here.breakers["a"].cool_down(0, NOW, 7)
        await here.health.exchange()
        await there.health.exchange()
        breaker = there.breakers["a"]
        assert breaker.admit(NOW) is None
        assert 6 < breaker.wait_s(NOW) <= 7
        assert breaker.admit(NOW + 7) == 0  # an ordinary call, no probe


async def test_a_model_that_is_well_again_is_taken_back(server: RedisServer) -> None:
    async with process(server) as here, process(server) as there:
        here.fails()
        await here.health.exchange()
        await there.health.exchange()
        probe = here.breakers["a"].admit(NOW + 5)
        assert probe is not None
        here.breakers["a"].succeed(probe, NOW + 5, 0.1)
        await here.health.exchange()
        await there.health.exchange()
        assert (here.state(), there.state()) == ("closed", "half_open")


async def test_what_a_process_was_told_it_does_not_tell_on(server: RedisServer) -> None:
    async with process(server) as here, process(server) as there, process(server) as third:
        here.fails()
        for each in (here, there, third, there, here):
            await each.health.exchange()
        redis = Redis(unix_socket_path=server.path)
        assert await redis.zcard(KEY) == 1
        await redis.delete(KEY)
        await redis.aclose()
        await there.health.exchange()
        await third.health.exchange()
        assert (there.state(), third.state()) == ("half_open", "half_open")
        assert here.state() == "open"  # by its own verdict


async def test_the_word_of_a_process_that_died_ends_by_itself(server: RedisServer) -> None:
    async with process(server) as there:
        async with process(server) as here:
            here.breakers["a"].cool_down(0, NOW, 0.05)
            await here.health.exchange()
        await there.health.exchange()
        assert there.breakers["a"].wait_s(NOW) > 0
        await asyncio.sleep(0.06)
        await there.health.exchange()
        assert there.breakers["a"].wait_s(NOW) == 0
        redis = Redis(unix_socket_path=server.path)
        assert await redis.exists(KEY) == 0  # and takes no room
        await redis.aclose()


async def test_what_a_process_sees_working_counts_more_than_what_it_is_told(server: RedisServer) -> None:
    async with process(server) as here, process(server) as there:
        here.fails()
        await here.health.exchange()
        there.breakers["a"].succeed(0, NOW, 0.1)
        await there.health.exchange()
        assert there.state() == "closed"


async def test_r10_a_redis_that_is_killed_breaks_nothing_and_is_found_again(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with process(server) as here, process(server) as there:
        here.fails()
        await here.health.exchange()
        await there.health.exchange()
        server.kill()
        for _ in range(3):
            await there.health.exchange()
        assert (there.health.away, there.state()) == (True, "open")  # the last advice runs out by itself
        assert [record.levelname for record in caplog.records] == ["WARNING"]  # told once, not every second
        there.fails("org/b:1")  # its own verdict needs nobody
        assert there.state("org/b:1") == "open"
        server.start()
        await here.health.exchange()
        await there.health.exchange()
        assert (there.health.away, there.state()) == (False, "open")


async def test_r10_a_redis_that_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as mute:
        path = str(tmp_path / "mute.sock")
        mute.bind(path)
        mute.listen()
        silent = RedisServer(tmp_path)
        silent.path = path
        async with process(silent, wait_s=0.02) as here:
            await asyncio.wait_for(here.health.exchange(), 5)
            assert here.health.away


async def test_it_runs_behind_and_stops_when_it_is_closed(server: RedisServer) -> None:
    async with process(server) as here, process(server) as there, here.health, there.health:
        here.fails()
        async with asyncio.timeout(10):
            while there.state() != "open":
                await asyncio.sleep(0.005)
            server.kill()
            while not (here.health.away and there.health.away):
                await asyncio.sleep(0.005)
    assert "share health" not in {task.get_name() for task in asyncio.all_tasks()}
