"""Answers given again: whose they are, when they are fresh, what is never kept, and what a hit costs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.config.price import FREE
from app.config.schema import CacheConfig, Degrade, RouteConfig
from app.records import Bill, Charge, Payer
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.answers import (
    MAX_ANSWER_BYTES,
    Answer,
    AnswerCache,
    Asked,
    ForgetFailed,
    MemoryAnswers,
    RedisAnswers,
    asked,
    packed,
    tenant_hash,
    unpacked,
)
from app.services.gateway.attempt import Attempt
from app.services.gateway.cache import AGED_S, SKEW_S, Cache
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.meter import MeteredGateway
from app.services.gateway.ports import FreeHold, OpenDesk
from app.services.gateway.recover import Recovery
from app.services.gateway.retries import RetryBudget
from app.services.gateway.routes import Router, Target
from app.services.gateway.scripted import SCRIPTED, Line, Say, ScriptedProvider
from graphs.errors import QuotaExhausted, UpstreamError
from graphs.types import Completion, Delta, Message, ModelRequest, Passage, ToolProposal, ToolSpec, Usage
from tests.redis_server import RedisServer, redis_server
from tests.services.gateway.test_gateway import Trace

ACME, UMBRELLA = Payer("acme", "ann"), Payer("umbrella", "eve")
SPENT = Usage(19, 3, cached_input_tokens=8)
ASK = ModelRequest((Message("system", "Be brief."), Message("user", "Say hello")), question="Say hello")
LOOKUP = ToolSpec("lookup", "Looks up.", {"type": "object"})


class Clock:
    def __init__(self) -> None:
        self.at = 1_000_000.0

    def __call__(self) -> float:
        return self.at


class Books(OpenDesk):
    """A desk whose rows can be read, at a step of the ladder, with the models that are allowed."""

    def __init__(self) -> None:
        self.rows: list[tuple[Charge, Bill]] = []
        self.step: Degrade | None = None
        self.models: frozenset[str] | None = None

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> FreeHold:
        return Entry(self.rows, charge)

    async def rung(self, payer: Payer) -> Degrade | None:
        return self.step

    def allowed(self, payer: Payer) -> frozenset[str] | None:
        return self.models


class Entry(FreeHold):
    def __init__(self, rows: list[tuple[Charge, Bill]], charge: Charge) -> None:
        self._rows, self._charge = rows, charge

    async def settle(self, bill: Bill) -> None:
        self._rows.append((self._charge, bill))


class Bench:
    """A gateway with one route, `chat`, whose models are played by a script."""

    def __init__(
        self,
        script: Callable[[ModelRequest], Line] | list[Line],
        *,
        exact: AnswerCache | None = None,
        config: CacheConfig | None = None,
        digest: str = "one",
        clock: Clock | None = None,
        aged: bool = False,
        first_token_timeout_s: float | None = None,
    ) -> None:
        self.clock, self.books = clock or Clock(), Books()
        self.provider = ScriptedProvider(script, replace(SCRIPTED, name="big"))
        self.small = ScriptedProvider(lambda _: "small", replace(SCRIPTED, name="small"))
        targets = {
            provider.info.name: Target(provider.info.name, provider, FREE, Breaker(BreakerPolicy(min_calls=1_000)))
            for provider in (self.provider, self.small)
        }
        config = config or CacheConfig(exact_ttl_s=60)
        routes = {
            "chat": RouteConfig(
                candidates=("big",), retries=0, cache=config, first_token_timeout_s=first_token_timeout_s
            ),
            "either": RouteConfig(candidates=("big", "small"), retries=0, cache=config),
            "plain": RouteConfig(candidates=("big",), retries=0),
        }
        router = Router(targets, routes, members=lambda name: routes[name].candidates, by_task={}, default="chat")
        self.exact = exact or MemoryAnswers(now=self.clock)
        digests = {"chat": digest, "either": digest}
        cache = Cache(self.exact, None, digests, aged=aged, now=self.clock)
        self.gateway = ModelGateway(router, Recovery(self.books, retries=RetryBudget(0.1, 10)), cache)

    @property
    def calls(self) -> int:
        return len(self.provider.requests)

    async def ask(self, request: ModelRequest = ASK, payer: Payer = ACME) -> Completion:
        return await self.gateway.complete(request, payer)


def hello(_: ModelRequest) -> Line:
    return Say(("Hello ", "you"), usage=SPENT)


async def test_the_same_call_is_answered_once_and_the_answer_given_again() -> None:
    bench = Bench(hello)
    first = await bench.ask()
    again = [item async for item in bench.gateway.stream(ASK, ACME)]
    assert again == [Delta("Hello you"), first]
    assert bench.calls == 1


async def test_a_hit_is_a_row_of_its_own_that_costs_nothing_and_read_no_token() -> None:
    bench = Bench(hello)
    told: list[Attempt] = []
    bench.gateway.recovery.observe(told.append)
    await bench.ask()
    await bench.ask()
    (_, paid), (charge, free) = bench.books.rows
    assert (paid.outcome, paid.usage) == ("ok", SPENT)
    assert (free.outcome, free.cost_micros, free.usage) == ("cached", 0, Usage())
    assert (charge.wanted_micros, charge.prompt_micros, charge.prompt_tokens, charge.model) == (0, 0, 0, "big")
    assert [attempt.bill.outcome for attempt in told] == ["ok", "cached"]


async def test_no_tenant_is_answered_from_anothers_cache() -> None:
    bench = Bench(hello)
    await bench.ask(payer=ACME)
    await bench.ask(payer=UMBRELLA)
    assert bench.calls == 2
    await bench.ask(payer=UMBRELLA)
    assert bench.calls == 2


async def test_an_entry_copied_to_another_tenants_place_is_no_answer() -> None:
    bench = Bench(hello)
    assert isinstance(bench.exact, MemoryAnswers)
    await bench.ask(payer=ACME)
    mine = next(iter(bench.exact._kept.items()))
    await bench.ask(payer=UMBRELLA)
    theirs = next(place for place in bench.exact._kept if place[0] == tenant_hash("umbrella"))
    bench.exact._kept[theirs] = mine[1]
    await bench.ask(payer=UMBRELLA)
    assert bench.calls == 3


@pytest.mark.parametrize(
    "other",
    [
        replace(ASK, messages=(Message("system", "Be rude."), ASK.messages[1])),
        replace(ASK, messages=(*ASK.messages[:1], Message("user", "Earlier"), ASK.messages[1])),
        replace(ASK, messages=(Message("user", "Be brief."), ASK.messages[1])),
        replace(ASK, temperature=0.5),
        replace(ASK, top_p=0.5),
        replace(ASK, max_tokens=5),
        replace(ASK, stop=("you",)),
        replace(ASK, response_schema={"type": "object"}),
        replace(ASK, task="rag"),
        replace(ASK, model="either"),
        replace(ASK, grounding=(Passage("c1", "d1", "T", "Text", 0, 4, 0.5, "handbook"),)),
    ],
)
async def test_whatever_decides_an_answer_is_in_its_name(other: ModelRequest) -> None:
    bench = Bench(hello)
    await bench.ask()
    await bench.ask(other)
    assert bench.calls == 2


async def test_other_passages_are_another_question_and_other_scores_are_not() -> None:
    bench = Bench(hello)
    passage = Passage("c1", "d1", "T", "Text", 0, 4, 0.5, "handbook")
    grounded = replace(ASK, task="rag", grounding=(passage,))
    await bench.ask(grounded)
    await bench.ask(replace(grounded, grounding=(replace(passage, score=0.9),)))
    assert bench.calls == 1
    await bench.ask(replace(grounded, grounding=(replace(passage, text="Changed"),)))
    assert bench.calls == 2


async def test_another_model_behind_the_route_is_another_answer() -> None:
    clock = Clock()
    answers = MemoryAnswers(now=clock)
    before, after = (Bench(hello, exact=answers, digest=digest, clock=clock) for digest in ("one", "two"))
    await before.ask()
    await after.ask()
    assert after.calls == 1


async def test_texts_that_read_the_same_are_the_same_question() -> None:
    bench = Bench(hello)
    for written in ("Caf\u00e9?", "Cafe\u0301?"):
        await bench.ask(replace(ASK, messages=(Message("user", written),), question=written))
    assert bench.calls == 1


def test_no_two_calls_share_a_name_however_their_texts_are_cut() -> None:
    names = {
        asked("acme", "chat", {"messages": messages}, question).key  # type: ignore[union-attr]
        for messages, question in (
            ([["user", "ab"]], "c"),
            ([["user", "a"]], "bc"),
            ([["user", ""]], "abc"),
            ([["user", 'a"],["user","b']], "c"),
            ([["user", "a"], ["user", "b"]], "c"),
            ([["user", "abc"]], ""),
        )
    }
    assert len(names) == 6


def test_a_name_does_not_depend_on_the_order_of_fields_or_on_how_a_number_is_written() -> None:
    one = asked("acme", "chat", {"temperature": 1, "seed": None, "schema": {"a": 1, "b": 2}}, "q")
    two = asked("acme", "chat", {"schema": {"b": 2.0, "a": 1.0}, "temperature": 1.0}, "q")
    assert one == two
    # Within a value null is something that was said.
    assert asked("a", "r", {"schema": {"default": None}}) != asked("a", "r", {"schema": {}})


def test_tenants_and_routes_do_not_run_into_each_other_in_a_name() -> None:
    assert asked("ab", "c", {}) != asked("a", "bc", {})
    assert asked("ab", "c", {}).tenant != asked("a", "bc", {}).tenant  # type: ignore[union-attr]


@pytest.mark.parametrize("call", [{"text": "\ud800"}, {"seed": 2**70}, {"made": object()}])
def test_a_call_that_cannot_be_written_down_has_no_name(call: dict[str, Any]) -> None:
    assert asked("acme", "chat", call) is None


async def test_an_answer_is_fresh_for_as_long_as_the_route_says() -> None:
    bench = Bench(hello)
    await bench.ask()
    bench.clock.at += 59.9
    await bench.ask()
    assert bench.calls == 1
    bench.clock.at += 0.2
    await bench.ask()
    assert bench.calls == 2


async def test_keeping_answers_for_the_ladder_makes_none_fresh_for_others() -> None:
    bench = Bench(hello, aged=True)
    await bench.ask()
    bench.clock.at += 60
    await bench.ask()
    assert bench.calls == 2


async def test_an_answer_from_the_future_is_not_believed() -> None:
    bench = Bench(hello)
    bench.clock.at += SKEW_S + 1
    await bench.ask()
    bench.clock.at -= SKEW_S + 1
    await bench.ask()
    assert bench.calls == 2


CALL = ToolProposal("c1", "lookup", {})


@pytest.mark.parametrize(
    "request_",
    [
        replace(ASK, tools=(LOOKUP,)),
        replace(ASK, task="agent"),
        replace(ASK, task="arguments"),
        replace(ASK, messages=(*ASK.messages, Message("assistant", "", (CALL,)), Message("tool", "7", (), "c1"))),
        replace(ASK, messages=(Message("assistant", "", (CALL,)), *ASK.messages)),
        replace(ASK, temperature=1.3),
        replace(ASK, model="plain"),
        replace(ASK, model="big"),
    ],
)
async def test_runs_with_tools_varied_answers_and_routes_without_a_cache_are_never_answered_from_one(
    request_: ModelRequest,
) -> None:
    bench = Bench(hello)
    await bench.ask(request_)
    await bench.ask(request_)
    assert bench.calls == 2
    assert isinstance(bench.exact, MemoryAnswers)
    assert bench.exact.size_bytes == 0


@pytest.mark.parametrize(
    "line",
    [
        Say(("Half an",), error=UpstreamError("broke off")),
        Say(("Half an",), finish_reason="length"),
        Say(("Nothing here",), finish_reason="no_answer"),
        Say(("Bad",), finish_reason="content_filter"),
        Say(("Ask",), tool_calls=(CALL,), finish_reason="stop"),
        Say(()),
        UpstreamError("away"),
    ],
)
async def test_an_answer_that_is_not_whole_plain_text_is_never_kept(line: Line) -> None:
    bench = Bench([line, "Whole."])
    with suppress(UpstreamError):
        await bench.ask()
    assert (await bench.ask()).text == "Whole."


async def test_an_answer_that_its_caller_left_is_not_kept() -> None:
    bench = Bench(hello)
    items = bench.gateway.stream(ASK, ACME)
    await anext(items)
    await items.aclose()
    await bench.ask()
    assert bench.calls == 2


async def test_a_caller_gets_no_answer_of_a_model_that_it_may_not_use() -> None:
    bench = Bench(hello)
    asking = replace(ASK, model="either")
    assert (await bench.ask(asking)).model == "big"
    bench.books.models = frozenset({"small"})
    assert (await bench.ask(asking)).text == "small"
    bench.books.models = None
    assert (await bench.ask(asking)).text == "small"  # of the two that were kept for the route, the later one


async def test_near_the_budget_an_old_answer_is_given_before_a_new_one_is_bought() -> None:
    bench = Bench(hello, aged=True)
    await bench.ask()
    bench.clock.at += AGED_S - 1
    bench.books.step = Degrade(at=0.8, cached=True, answer="refuse")
    meter = MeteredGateway(bench.gateway, Trace(), "chat", payer=ACME)
    await meter.settle_in()
    assert (await meter.complete(replace(ASK, model="chat"))).text == "Hello you"
    assert (meter.cached, meter.cost_micros, meter.usage, bench.calls) == (True, 0, Usage(), 1)
    with pytest.raises(QuotaExhausted):
        await meter.complete(replace(ASK, model="chat", messages=(Message("user", "Something new"),)))


async def test_the_ladders_cheaper_route_does_not_hide_what_the_asked_one_has_kept() -> None:
    bench = Bench(hello)
    await bench.ask()
    bench.books.step = Degrade(at=0.8, cached=True, route="plain")
    meter = MeteredGateway(bench.gateway, Trace(), "chat", payer=ACME)
    await meter.settle_in()
    await meter.complete(ASK)
    assert (meter.cached, bench.calls) == (True, 1)


async def test_a_tenants_answers_can_be_forgotten_without_touching_anothers() -> None:
    bench = Bench(hello)
    for payer in (ACME, UMBRELLA):
        await bench.ask(payer=payer)
    assert bench.gateway.cache is not None
    await bench.gateway.cache.forget("acme")
    await bench.ask(payer=UMBRELLA)
    assert bench.calls == 2
    await bench.ask(payer=ACME)
    assert bench.calls == 3


async def test_looks_are_told_with_what_they_found() -> None:
    bench = Bench(hello)
    seen: list[tuple[str, str]] = []
    assert bench.gateway.cache is not None
    bench.gateway.cache.observe(lambda route, found: seen.append((route, found)))
    await bench.ask()
    await bench.ask()
    assert seen == [("chat", "miss"), ("chat", "exact")]


# Where answers are kept


def name(question: str = "q", tenant: str = "acme") -> Asked:
    found = asked(tenant, "chat", {}, question)
    assert found is not None
    return found


ANSWER = Answer("Hello", "big", "v1", "lab", SPENT, 5.0, {"model": "served-1"})


async def test_memory_keeps_within_its_bytes_what_was_used_last() -> None:
    size = len(packed(name("0"), ANSWER))
    answers = MemoryAnswers(max_bytes=3 * size)
    for question in "012":
        await answers.put(name(question), ANSWER, 60)
    await answers.get(name("0"))
    await answers.put(name("3"), ANSWER, 60)
    assert [await answers.get(name(question)) is not None for question in "0123"] == [True, False, True, True]
    assert answers.size_bytes == 3 * size
    await answers.put(name("4"), replace(ANSWER, text="x" * MAX_ANSWER_BYTES), 60)
    assert await answers.get(name("4")) is None


async def test_memory_gives_back_the_room_of_what_has_died() -> None:
    clock = Clock()
    answers = MemoryAnswers(now=clock)
    await answers.put(name(), ANSWER, 60)
    await answers.put(name(), ANSWER, 60)
    clock.at += 60
    assert await answers.get(name()) is None
    assert answers.size_bytes == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: kept | {"form": 0},
        lambda kept: kept | {"key": "0" * 64},
        lambda kept: kept | {"text": 7},
        lambda kept: kept | {"text": ""},
        lambda kept: kept | {"usage": {"input_tokens": -5}},
        lambda kept: kept | {"usage": {"input_tokens": "many"}},
        lambda kept: kept | {"usage": {"stolen": 1}},
        lambda kept: kept | {"made_at": "now"},
        lambda kept: kept | {"told": []},
        lambda kept: kept | {"extra": 1},
        lambda kept: {name: value for name, value in kept.items() if name != "model"},
        lambda kept: [kept],
        lambda kept: None,
    ],
)
def test_a_poisoned_entry_is_no_answer(spoil: Callable[[Any], Any]) -> None:
    whole = orjson.loads(packed(name(), ANSWER))
    assert unpacked(orjson.dumps(whole), name().key) == ANSWER
    assert unpacked(orjson.dumps(spoil(whole)), name().key) is None


@pytest.mark.parametrize("data", [b"", b"{", b"\x00\xff", b"null", b"[" * 100_000])
def test_bytes_that_are_no_entry_are_no_answer(data: bytes) -> None:
    assert unpacked(data, name().key) is None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[Redis]:
    client: Redis = Redis(unix_socket_path=server.path, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))
    async with client:
        yield client


async def test_processes_with_one_redis_share_their_answers(redis: Redis) -> None:
    clock = Clock()
    one, other = (Bench(hello, exact=RedisAnswers(redis), clock=clock) for _ in range(2))
    assert await one.ask() == await other.ask()
    assert (one.calls, other.calls) == (1, 0)
    ttl_ms = await redis.pttl((await redis.keys("*"))[0])
    assert 0 < ttl_ms <= 60_000


async def test_a_redis_that_dies_between_two_calls_is_a_miss_and_no_error(redis: Redis, server: RedisServer) -> None:
    since = Clock()
    bench = Bench(hello, exact=RedisAnswers(redis, monotonic=since))
    await bench.ask()
    server.kill()
    assert (await bench.ask()).text == "Hello you"
    assert bench.calls == 2
    server.start()
    await bench.ask()
    assert bench.calls == 3  # it is left alone for a moment
    since.at += 2
    await bench.ask()
    await bench.ask()
    assert bench.calls == 4


async def test_a_redis_that_dies_while_the_model_speaks_does_not_cost_the_answer(
    redis: Redis, server: RedisServer
) -> None:
    speaking = asyncio.Event()
    bench = Bench([Say(("Hello ", "you"), wait_between=speaking)], exact=RedisAnswers(redis))
    items = bench.gateway.stream(ASK, ACME)
    assert await anext(items) == Delta("Hello ")
    server.kill()
    speaking.set()
    assert [item async for item in items][-1].text == "Hello you"  # type: ignore[union-attr]


@pytest.mark.parametrize("poison", [b"", b"{}", b"x" * (MAX_ANSWER_BYTES + 1), packed(name("another"), ANSWER)])
async def test_what_somebody_else_put_into_redis_is_a_miss(redis: Redis, poison: bytes) -> None:
    answers = RedisAnswers(redis)
    await answers.put(name(), ANSWER, 60)
    assert await answers.get(name()) == ANSWER
    (key,) = await redis.keys("*")
    await redis.set(key, poison)
    assert await answers.get(name()) is None


async def test_redis_holding_another_kind_of_value_is_a_miss(redis: Redis) -> None:
    answers = RedisAnswers(redis)
    await answers.put(name(), ANSWER, 60)
    (key,) = await redis.keys("*")
    await redis.delete(key)
    await redis.lpush(key, "x")  # type: ignore[misc]
    assert await answers.get(name()) is None


async def test_forgetting_in_redis_takes_one_tenant_and_says_when_it_could_not(
    redis: Redis, server: RedisServer
) -> None:
    answers = RedisAnswers(redis)
    await answers.put(name(), ANSWER, 60)
    await answers.put(name(tenant="umbrella"), ANSWER, 60)
    await answers.forget(tenant_hash("acme"))
    assert await answers.get(name()) is None
    assert await answers.get(name(tenant="umbrella")) == ANSWER
    server.kill()
    with pytest.raises(ForgetFailed):
        await answers.forget(tenant_hash("umbrella"))


async def test_a_redis_that_takes_the_question_and_never_answers_is_not_waited_for(tmp_path: Path) -> None:
    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    async with await asyncio.start_unix_server(silent, tmp_path / "silent.sock"):
        client: Redis = Redis(unix_socket_path=str(tmp_path / "silent.sock"))  # waits for ever, and tries again
        bench = Bench(hello, exact=RedisAnswers(client))
        assert (await bench.ask()).text == "Hello you"
        gone.set()
        await client.aclose()
