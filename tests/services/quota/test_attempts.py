"""What the gateway's attempts leave in the ledger, whatever their providers say of usage, and however they end."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config.price import Price
from app.records import Bill, Charge, Payer
from app.services.gateway.openai_wire import read_usage
from app.services.gateway.ports import OpenDesk
from app.services.gateway.scripted import Say
from app.services.quota.book import SETTLED
from app.services.quota.entry import closing
from app.services.quota.ledger import Budget, Hold, Ledger
from app.services.quota.usage import UsageBook
from app.services.store.database import Database
from graphs.errors import PilothouseError, UpstreamError
from graphs.types import Delta, Usage
from tests.fake_openai import GREETING, Answer, chunk, events, fake_openai, sends
from tests.services.gateway.chain import ACME, ASK, chain
from tests.services.quota.kit import Books, bill, books, spend, tenants

FIELDS = "outcome, cost_micros, input_tokens, output_tokens, cached_input_tokens, estimated"
DOWN = UpstreamError("503")


@dataclass
class Till(OpenDesk):
    """A desk that asks a real ledger."""

    ledger: Ledger
    limits: tuple[Budget, ...] = tenants(1_000_000_000)

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> Hold:
        return await self.ledger.reserve(charge, self.limits)


@asynccontextmanager
async def till(tmp_path: Any) -> AsyncIterator[tuple[Books, Any]]:
    async with books(f"sqlite+aiosqlite:///{tmp_path / 'l.db'}") as book:
        yield book, Till(book.open())


def says(*usages: str) -> Answer:
    """A greeting whose last chunks carry these usages, as raw JSON."""
    tail = b"".join(
        b'data: {"id": "x", "object": "chat.completion.chunk", "model": "m-1", "choices": [], "usage": %s}\n\n'
        % usage.encode()
        for usage in usages
    )
    return sends(events(*GREETING[:-1], done=False) + tail + b"data: [DONE]\n\n")


def counts(prompt: str, completion: str, cached: str = "0") -> str:
    details = f'"prompt_tokens_details": {{"cached_tokens": {cached}}}'
    return f'{{"prompt_tokens": {prompt}, "completion_tokens": {completion}, {details}}}'


ESTIMATE = None
ZOO: Mapping[str, tuple[Answer, tuple[int, int, int] | None]] = {
    "none": (says(), ESTIMATE),
    "null": (says("null"), ESTIMATE),
    "empty": (says("{}"), ESTIMATE),
    "a list": (says("[]"), ESTIMATE),
    "the last of two": (says(counts("10", "1"), counts("10", "4")), (10, 4, 0)),
    "the same twice": (says(counts("10", "4"), counts("10", "4")), (10, 4, 0)),
    "negative": (says(counts("-10", "4")), ESTIMATE),
    "1e308": (says(counts("1e308", "1e308")), ESTIMATE),
    "more than any number": (says(counts("1e999", "4")), ESTIMATE),
    "larger than a BIGINT": (says(counts(str(1 << 80), "4")), ESTIMATE),
    "NaN": (says(counts("NaN", "NaN")), ESTIMATE),
    "text": (says(counts('"10"', '"4"')), ESTIMATE),
    "true": (says(counts("true", "true")), ESTIMATE),
    "whole floats": (says(counts("10.0", "4.0")), (10, 4, 0)),
    "parts of tokens": (says(counts("10.5", "4.5")), ESTIMATE),
    "more cached than read": (says(counts("10", "4", "99")), (10, 4, 10)),
    "negative cached": (says(counts("10", "4", "-99")), (10, 4, 0)),
    "NUL in the model's name": (
        sends(events(*(chunk("Hi", model="m\0\ud800"[:2]), chunk(finish="stop", model="m\0")))),
        ESTIMATE,
    ),
}


@pytest.mark.parametrize("name", ZOO)
async def test_r06_any_usage_is_booked_once_and_as_a_number(tmp_path, name: str):
    answer, expected = ZOO[name]
    async with till(tmp_path) as (book, desk), fake_openai(answer) as fake:
        provider = fake.provider(name="a")
        route = chain({"a": provider}, books=desk)
        failed = False
        try:
            await route.ask()
        except PilothouseError:
            failed = True  # what is no JSON at all is an answer that broke off
        await provider.close()
        outcome, cost, read, wrote, cached, estimated = book.one(f"SELECT {FIELDS} FROM ledger")
        assert outcome == ("failed" if failed else "ok")
        assert all(isinstance(amount, int) and amount >= 0 for amount in (cost, read, wrote, cached))
        if expected is ESTIMATE:
            assert estimated
            assert 0 < cost < 1_000
        else:
            assert (read, wrote, cached, estimated) == (*expected, 0)
            assert cost == read * 2 + wrote * 8
        await desk.ledger.close()
        assert book.one("SELECT spent_micros, held_micros FROM budgets") == (cost, 0)


PRICES = st.builds(Price, *[st.integers(0, 10**9)] * 4, st.just("config"))
ANY = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2))
)


@given(PRICES, st.dictionaries(st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens"]), ANY), ANY)
def test_r06_no_usage_costs_less_than_nothing_or_more_than_its_tokens(price: Price, usage: dict[str, Any], cached: Any):
    read = read_usage(usage | {"prompt_tokens_details": {"cached_tokens": cached}})
    if read is not None:
        assert 0 <= price.cost_picos(read) <= price.worst_micros(read.input_tokens, read.output_tokens) * 10**6


@given(*[st.integers(-(1 << 80), 1 << 80)] * 5)
def test_r06_the_ledger_takes_no_amount_that_is_negative_or_larger_than_its_column(
    a: int, b: int, c: int, d: int, e: int
):
    """The last guard, for adapters that are not ours."""
    values = dict(zip(SETTLED, closing(bill(a, usage=Usage(b, c, False, d, e))), strict=True))
    amounts = [values[name] for name in SETTLED if name.endswith(("_micros", "_tokens"))]
    assert len(amounts) == 5
    assert all(0 <= amount < 1 << 63 for amount in amounts)


async def test_texts_that_no_database_holds_are_written_all_the_same(store_url: str):
    async with books(store_url) as book:
        await spend(book.open(), 5, model_version="a\0b\ud800" + "x" * 9_000)
        state, version = book.one("SELECT state, model_version FROM ledger")
        assert (state, version[:4], len(version) <= 512) == ("settled", "ab?x", True)


async def test_r07_a_call_is_booked_at_the_price_at_which_it_was_admitted(tmp_path):
    """Prices are read when a process starts: another one starts with dearer ones while a call is in flight."""
    async with till(tmp_path) as (book, desk):
        gate = asyncio.Event()
        usage = Usage(100, 10)
        route = chain({"a": [Say(("Hel", "lo"), wait_between=gate, usage=usage)]}, books=desk)
        async with aclosing(route.gateway.stream(ASK, ACME, None)) as items:
            assert isinstance(await anext(items), Delta)
            dearer = Price(20_000_000, 80_000_000, 20_000_000, 20_000_000, "tomorrow")
            other = chain({"a": [Say(("Hi",), usage=usage)]}, books=Till(book.open()), prices={"a": dearer})
            await other.ask()
            gate.set()
            async for _ in items:
                pass
        assert book.rows("SELECT cost_micros, price_source FROM ledger ORDER BY cost_micros") == [
            (280, "config"),
            (2_800, "tomorrow"),
        ]


async def test_r13_each_attempt_is_booked_by_itself_and_the_caller_pays_the_sum(tmp_path):
    async with till(tmp_path) as (book, desk):
        broken = Say(("One two three",), error=UpstreamError("reset"))
        script = {"a": [DOWN, broken], "b": [Say(("Hello",), usage=Usage(50, 5))]}
        route = chain(script, books=desk, retries=1, on_broken_stream="continue")
        told: list[Bill] = []
        items = [item async for item in route.gateway.stream(ASK, ACME, lambda attempt: told.append(attempt.bill))]
        assert items
        rows = book.rows(
            "SELECT model, attempt, outcome, cost_micros, estimated FROM ledger ORDER BY started_us, attempt"
        )
        assert [row[:3] for row in rows[:1]] == [("a", 1, "failed")]
        assert rows[0].cost_micros == 0  # nobody read its prompt
        assert [row.attempt for row in rows] == list(range(1, len(rows) + 1))
        database = await Database.open(book.url)
        report = await UsageBook(database).report(group_by=("outcome",), tenant_id="acme", since=None, until=None)
        await database.close()
        assert report.total.calls == 1
        assert report.total.attempts == len(told) == len(rows)
        assert (
            report.total.cost_micros == sum(bill.cost_micros for bill in told) == sum(row.cost_micros for row in rows)
        )


async def test_a_candidate_that_the_budget_cannot_cover_is_no_attempt_of_the_call(tmp_path):
    async with till(tmp_path) as (book, desk):
        desk.limits = tenants(50_000)
        dear = Price(2_000_000, 8_000_000_000, 2_000_000, 2_000_000, "config")
        route = chain({"a": ["Hello"], "b": ["Hello"]}, books=desk, prices={"a": dear})
        _, completion = await route.ask(replace(ASK, max_tokens=100))
        assert completion.model == "b"
        assert book.rows("SELECT model, attempt FROM ledger") == [("b", 1)]


async def test_r13_a_call_cancelled_before_its_first_token_pays_for_its_prompt_alone(tmp_path):
    async with till(tmp_path) as (book, desk):
        never = asyncio.Event()
        route = chain({"a": [Say(("Hello",), wait=never)]}, books=desk)
        calling = asyncio.create_task(route.ask())
        while not route.asked("a"):
            await asyncio.sleep(0)
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await route.gateway.close()
        outcome, cost, read, wrote, _, estimated = book.one(f"SELECT {FIELDS} FROM ledger")
        assert (outcome, wrote, estimated) == ("cancelled", 0, 1)
        assert cost == read * 2 > 0
        assert book.one("SELECT held_micros - unbooked_micros FROM budget_holds") >= 0


async def test_r13_what_was_said_before_a_caller_went_away_is_paid_for(tmp_path):
    async with till(tmp_path) as (book, desk):
        route = chain({"a": [Say(("Hello there", " you"), wait_between=asyncio.Event())]}, books=desk)
        async with aclosing(route.gateway.stream(ASK, ACME, None)) as items:
            await anext(items)
        await route.gateway.close()
        outcome, cost, read, wrote, _, estimated = book.one(f"SELECT {FIELDS} FROM ledger")
        assert (outcome, estimated) == ("cancelled", 1)
        assert wrote > 0
        assert cost == read * 2 + wrote * 8
