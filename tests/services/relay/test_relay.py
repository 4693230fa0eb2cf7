"""Events of a run on their way to another process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.records import RunEvent
from app.services.relay.relay import PREFIX, EventRelay, RelayLost
from tests.redis_server import RedisServer, redis_server


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("r")) as up:
        yield up


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url, socket_timeout=2, retry=Retry(NoBackoff(), 0)) as client:
        yield client


def said(number: int, text: str = "x") -> RunEvent:
    return RunEvent(number, "message.delta", {"text": text})


async def heard(relay: EventRelay, run_id: str, after: int = 0) -> list[RunEvent]:
    async with asyncio.timeout(30), aclosing(relay.follow(run_id, after)) as told:
        return [event async for event in told if event is not None]


async def test_another_process_hears_the_events_as_they_come_from_any_number_on(redis: Redis) -> None:
    here, there = EventRelay(redis), EventRelay(redis)
    early = asyncio.create_task(heard(there, "r"))
    for number in (1, 2):
        here.tell("r", said(number))
    await here.close()
    here.tell("r", said(3, "\ud800"))  # no UTF-8 holds it
    late = asyncio.create_task(heard(there, "r", after=2))
    here.end("r", 4)
    assert [event.number for event in await early] == [1, 2, 3]
    assert await late == [said(3, "\ud800")]


async def test_the_end_of_a_part_does_not_end_the_next_one(redis: Redis) -> None:
    relay = EventRelay(redis)
    for word in (said(1), said(2)):
        relay.tell("r", word)
    relay.end("r", 3)
    relay.tell("r", said(4))
    relay.end("r", 5)
    assert [event.number for event in await heard(relay, "r", after=3)] == [4]
    assert [event.number for event in await heard(relay, "r")] == [1, 2]


async def test_a_missing_event_is_noticed_and_never_skipped(redis: Redis) -> None:
    relay = EventRelay(redis)
    relay.tell("r", said(1))
    relay.tell("r", said(3))
    with pytest.raises(RelayLost, match="events 2 to 2"):
        await heard(relay, "r")


async def test_a_run_of_which_nothing_was_passed_on_is_lost_within_a_second(redis: Redis) -> None:
    with pytest.raises(RelayLost, match="nothing"):
        await heard(EventRelay(redis), "r")


async def test_a_quiet_run_is_looked_after(redis: Redis) -> None:
    relay = EventRelay(redis)
    relay.tell("r", said(1))
    async with asyncio.timeout(30), aclosing(relay.follow("r", 0)) as told:
        assert await anext(told) == said(1)
        assert await anext(told) is None


async def test_d15_a_redis_that_is_away_costs_the_teller_nothing_and_the_follower_is_told(
    redis: Redis, server: RedisServer
) -> None:
    relay = EventRelay(redis)
    relay.tell("r", said(1))
    await relay.close()
    server.kill()
    for number in range(2, 500):
        relay.tell("r", said(number))
    await relay.close()
    with pytest.raises(RelayLost, match="does not answer"):
        await heard(relay, "r")


async def test_a_stream_is_bounded_and_gone_some_minutes_after_the_last_word(redis: Redis) -> None:
    relay = EventRelay(redis)
    for number in range(1, 1_001):
        relay.tell("r", said(number))
    await relay.close()
    assert await redis.xlen(PREFIX + "r") == 1  # what came together is one piece
    assert 0 < await redis.ttl(PREFIX + "r") <= 300
