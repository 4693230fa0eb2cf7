"""Identical calls at one time: one asks the model, the others wait for its answer, and no tenant for another's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app.records import Payer
from app.services.gateway.answers import WAIT_S, RedisAnswers
from app.services.gateway.scripted import Line, Say
from graphs.errors import UpstreamError
from graphs.types import Completion, ModelRequest
from tests.redis_server import redis_server
from tests.services.gateway.test_cache import ACME, ASK, UMBRELLA, Bench


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Redis]:
    with redis_server(tmp_path) as server:
        client = Redis.from_url(server.url)
        yield client
        await client.aclose()


class Slow:
    """Answers once it is told to."""

    def __init__(self, *, error: Exception | None = None) -> None:
        self.go, self.error = asyncio.Event(), error

    def __call__(self, _: ModelRequest) -> Line:
        return Say(("Hello ", "you"), wait=self.go, error=self.error)


async def settled(bench: Bench, calls: int = 1) -> None:
    """Until the model has been asked so often, and whoever else is to ask or wait has got there, past Redis too."""
    async with asyncio.timeout(20):
        while bench.calls < calls:
            await asyncio.sleep(0.001)
        await asyncio.sleep(2 * WAIT_S if isinstance(bench.exact, RedisAnswers) else 0.02)


def twenty(bench: Bench, payer: Callable[[int], Payer] = lambda _: ACME) -> "list[asyncio.Task[Completion]]":
    return [asyncio.create_task(bench.ask(payer=payer(number))) for number in range(20)]


@pytest.mark.parametrize("shared", [False, True])
async def test_twenty_at_once_ask_once_and_nineteen_are_free(shared: bool, redis: Redis) -> None:
    slow = Slow()
    bench = Bench(slow, exact=RedisAnswers(redis) if shared else None)
    asking = twenty(bench)
    await settled(bench)
    slow.go.set()
    answers = await asyncio.gather(*asking)
    assert bench.calls == 1
    assert {answer.text for answer in answers} == {"Hello you"}
    assert sorted(bill.outcome for _, bill in bench.books.rows) == ["cached"] * 19 + ["ok"]
    assert sum(bill.usage.output_tokens for _, bill in bench.books.rows) == answers[0].usage.output_tokens


async def test_processes_that_share_their_answers_ask_once_each(redis: Redis) -> None:
    slow = Slow()
    benches = [Bench(slow, exact=RedisAnswers(redis)) for _ in range(2)]
    asking = [task for bench in benches for task in twenty(bench)]
    for bench in benches:
        await settled(bench)
    slow.go.set()
    await asyncio.gather(*asking)
    assert [bench.calls for bench in benches] == [1, 1]


async def test_no_tenant_waits_for_anothers_answer() -> None:
    slow = Slow()
    bench = Bench(slow)
    asking = twenty(bench, lambda number: (ACME, UMBRELLA)[number % 2])
    await settled(bench, 2)
    slow.go.set()
    await asyncio.gather(*asking)
    assert bench.calls == 2
    assert sorted(charge.payer.tenant_id for charge, bill in bench.books.rows if bill.outcome == "ok") == [
        "acme",
        "umbrella",
    ]


async def test_where_the_first_one_fails_the_others_ask_themselves() -> None:
    slow = Slow(error=UpstreamError("it broke"))
    bench = Bench(slow)
    asking = twenty(bench)
    await settled(bench)
    slow.error = None  # for those who ask now
    slow.go.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers].count(UpstreamError) == 1
    assert bench.calls == 20
    assert await bench.ask() in answers  # and one of theirs is kept


async def test_where_the_first_one_goes_away_the_others_ask_themselves() -> None:
    slow = Slow()
    bench = Bench(slow)
    first, second, *_ = twenty(bench)
    await settled(bench)
    first.cancel()
    await settled(bench, 2)
    slow.go.set()
    assert (await second).text == "Hello you"
    assert first.cancelled()


async def test_nobody_waits_longer_than_for_a_first_token() -> None:
    held = asyncio.Event()

    def slow(_: ModelRequest) -> Line:
        return Say(("Hello ", "you"), wait_between=held if bench.calls == 1 else None)

    bench = Bench(slow, first_token_timeout_s=0.05)
    first = asyncio.create_task(bench.ask())
    await settled(bench)
    assert (await bench.ask()).text == "Hello you"
    assert bench.calls == 2
    held.set()
    assert (await first).text == "Hello you"


async def test_a_call_that_asks_for_variety_waits_for_nobody() -> None:
    slow = Slow()
    bench = Bench(slow)
    varied = ModelRequest(ASK.messages, question=ASK.question, temperature=1.5)
    asking = [asyncio.create_task(bench.ask(varied)) for _ in range(3)]
    await settled(bench, 3)
    slow.go.set()
    await asyncio.gather(*asking)
    assert bench.calls == 3
