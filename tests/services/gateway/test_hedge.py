"""A second model asked beside a slow first one: who speaks first is heard, the other is stopped, both are booked."""

import asyncio
from typing import Any

import pytest

from app.services.breaker import BreakerPolicy
from app.services.gateway.meter import MeteredGateway
from app.services.gateway.recover import BrokenOff
from app.services.gateway.retries import RetryBudget
from app.services.gateway.scripted import Say, ScriptedProvider
from graphs.errors import QuotaExhausted, UpstreamError, UpstreamRejected
from tests.services.gateway.chain import ACME, ASK, Books, Chain, chain
from tests.services.gateway.test_gateway import Trace

SOON = 0.002
DOWN = UpstreamError("503")


def never() -> Say:
    return Say(("late",), wait=asyncio.Event())


def provider(route: Chain, name: str) -> ScriptedProvider:
    found = route.targets[name].provider
    assert isinstance(found, ScriptedProvider)
    return found


async def until_booked(route: Chain) -> None:
    await route.gateway.recovery.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}  # nothing goes on behind


async def test_a_first_model_that_speaks_in_time_is_alone() -> None:
    route = chain({"a": ["Hello"], "b": ["Hi"]}, hedge_after_s=5)
    assert (await route.ask())[1].model == "a"
    assert route.books.told == [("a", "ok")]


async def test_the_second_is_heard_where_the_first_does_not_speak_and_the_first_is_stopped_at_once() -> None:
    route = chain({"a": [never()], "b": ["Hi you"]}, hedge_after_s=SOON)
    texts, completion = await route.ask()
    assert (texts, completion.text, completion.model) == (["Hi ", "you"], "Hi you", "b")
    await until_booked(route)
    assert provider(route, "a").closed_early == 1
    assert route.books.told == [("a", "cancelled"), ("b", "ok")]
    assert [line.settled for line in route.books.lines] == [1, 1]
    assert [line.charge.attempt for line in route.books.lines] == [1, 2]
    assert sorted(attempt.number for attempt in route.attempts) == [1, 2]


async def test_the_first_word_is_not_held_up_by_stopping_the_loser() -> None:
    """A loser whose books are slow must not cost the winner's first token."""
    opens = asyncio.Event()

    class Slow(Books):
        async def reserve(self, *given: Any) -> Any:
            hold = await super().reserve(*given)
            real = hold.settle

            async def settle(bill: Any) -> None:
                if bill.outcome == "cancelled":
                    await opens.wait()
                await real(bill)

            hold.settle = settle
            return hold

    route = chain({"a": [never()], "b": ["Hi"]}, hedge_after_s=SOON, books=Slow())
    assert (await asyncio.wait_for(route.ask(), 5))[0] == ["Hi"]
    opens.set()
    await until_booked(route)
    assert route.books.told == [("a", "cancelled"), ("b", "ok")]


async def test_the_bill_of_a_run_has_the_hedge_that_lost_even_if_it_ends_last() -> None:
    route = chain({"a": [never()], "b": ["Hi"]}, hedge_after_s=SOON)
    meter = MeteredGateway(route.gateway, Trace(), payer=ACME)
    await meter.complete(ASK)
    await until_booked(route)
    assert {(call.model, call.error_code) for call in meter.calls} == {("a", "cancelled"), ("b", None)}
    assert meter.cost_micros == sum(bill.cost_micros for bill in route.books.bills)
    assert meter.answered_by == ("b", "1", "scripted")


async def test_the_first_may_still_win_after_the_second_was_asked() -> None:
    speaks = asyncio.Event()
    route = chain({"a": [Say(("Hello",), wait=speaks)], "b": [never()]}, hedge_after_s=SOON)
    asking = asyncio.ensure_future(route.ask())
    while not route.asked("b"):
        await asyncio.sleep(0.001)
    speaks.set()
    assert (await asking)[1].model == "a"
    await until_booked(route)
    assert route.books.told == [("a", "ok"), ("b", "cancelled")]
    assert provider(route, "b").closed_early == 1


async def test_a_first_that_fails_in_time_is_no_reason_to_hedge() -> None:
    route = chain({"a": [UpstreamRejected("400")], "b": ["Hi"]}, hedge_after_s=5)
    with pytest.raises(UpstreamRejected):
        await route.ask()
    assert route.asked("b") == 0


async def test_a_first_that_fails_while_both_are_asked_leaves_the_second_to_answer() -> None:
    fails = asyncio.Event()
    speaks = asyncio.Event()
    route = chain(
        {"a": [Say(error=DOWN, wait_between=fails)], "b": [Say(("Hi",), wait=speaks)]},
        hedge_after_s=SOON,
        policy=BreakerPolicy(min_calls=1),
    )
    asking = asyncio.ensure_future(route.ask())
    while not route.asked("b"):
        await asyncio.sleep(0.001)
    fails.set()
    await asyncio.sleep(0.005)
    speaks.set()
    assert (await asking)[1].model == "b"
    await until_booked(route)
    assert route.books.told == [("a", "failed"), ("b", "ok")]
    assert (route.state("a"), route.state("b")) == ("open", "closed")


async def test_where_both_fail_the_third_is_asked_and_none_of_them_twice() -> None:
    fails = asyncio.Event()
    route = chain(
        {"a": [Say(error=DOWN, wait_between=fails)], "b": [DOWN], "c": ["Hello"]},
        hedge_after_s=SOON,
        policy=BreakerPolicy(min_calls=5),
    )
    asking = asyncio.ensure_future(route.ask())
    while not route.asked("b"):
        await asyncio.sleep(0.001)
    fails.set()
    assert (await asking)[1].model == "c"
    await until_booked(route)
    assert (route.asked("a"), route.asked("b"), route.asked("c")) == (1, 1, 1)
    assert [line.charge.attempt for line in route.books.lines] == [1, 2, 3]


async def test_a_winner_that_breaks_off_is_not_begun_again() -> None:
    route = chain({"a": [never()], "b": [Say(("Half ",), error=DOWN)], "c": ["Hello"]}, hedge_after_s=SOON, retries=2)
    with pytest.raises(BrokenOff, match="b broke off"):
        await route.ask()
    await until_booked(route)
    assert route.asked("c") == 0
    assert route.books.told == [("a", "cancelled"), ("b", "failed")]


async def test_a_caller_that_leaves_stops_and_books_both() -> None:
    route = chain({"a": [never()], "b": [never()]}, hedge_after_s=SOON)
    asking = asyncio.ensure_future(route.ask())
    while not route.asked("b"):
        await asyncio.sleep(0.001)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await until_booked(route)
    assert (provider(route, "a").closed_early, provider(route, "b").closed_early) == (1, 1)
    assert route.books.told == [("a", "cancelled"), ("b", "cancelled")]
    assert (route.state("a"), route.state("b")) == ("closed", "closed")


async def test_a_caller_that_leaves_in_the_middle_of_the_answer_closes_the_winner() -> None:
    route = chain({"a": [never()], "b": [Say(("Hi", "you"), wait_between=asyncio.Event())]}, hedge_after_s=SOON)
    stream = route.gateway.stream(ASK, ACME)
    await anext(stream)
    await stream.aclose()
    await until_booked(route)
    assert provider(route, "b").closed_early == 1
    assert route.books.told == [("a", "cancelled"), ("b", "cancelled")]


async def test_a_resting_candidate_is_passed_over_by_the_hedge_and_its_probe_given_back() -> None:
    route = chain({"a": [never(), never()], "b": ["Hi"], "c": ["Hey"]}, hedge_after_s=SOON)
    route.targets["b"].breaker.trip(0, route.clock())
    assert (await route.ask())[1].model == "c"
    await until_booked(route)


async def test_a_hedge_is_a_retry_for_the_budget() -> None:
    route = chain({"a": [never(), never()], "b": ["Hi"]}, hedge_after_s=SOON, budget=RetryBudget(0.0, 1))
    assert (await route.ask())[1].model == "b"
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(route.ask(), 0.05)
    await until_booked(route)
    assert route.asked("b") == 1


async def test_a_probe_that_the_retry_budget_does_not_pay_for_gives_its_place_back() -> None:
    route = chain({"a": [never()], "b": ["Hi"]}, hedge_after_s=SOON, budget=RetryBudget(0, 0))
    breaker = route.targets["b"].breaker
    breaker.advise(route.clock(), open_s=1, cool_s=0)
    route.clock.now += 1
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(route.ask(), 0.05)
    await until_booked(route)
    assert route.asked("b") == 0
    assert breaker.admit(route.clock()) is not None


async def test_a_continuation_is_asked_of_one_model_alone() -> None:
    """A second one beside it would not know what was said."""
    half = Say(("One ",), error=DOWN)
    late = Say(("two",), wait=(speaks := asyncio.Event()))
    route = chain({"a": [half], "b": [late], "c": ["Hello"]}, hedge_after_s=SOON, on_broken_stream="continue")
    asking = asyncio.ensure_future(route.ask())
    while not route.asked("b"):
        await asyncio.sleep(0.001)
    await asyncio.sleep(5 * SOON)
    speaks.set()
    assert (await asking)[1].text == "One two"
    assert route.asked("c") == 0


async def test_a_probe_of_a_hedge_that_no_budget_covers_gives_its_place_back() -> None:
    speaks = asyncio.Event()

    class OneCall(Books):
        async def reserve(self, *given: Any) -> Any:
            if self.lines:
                raise QuotaExhausted("enough for one")
            return await super().reserve(*given)

    route = chain({"a": [Say(("Hello",), wait=speaks)], "b": ["Hi"]}, hedge_after_s=SOON, books=OneCall())
    breaker = route.targets["b"].breaker
    breaker.advise(route.clock(), open_s=1, cool_s=0)
    route.clock.now += 1
    assert route.state("b") == "half_open"
    asking = asyncio.ensure_future(route.ask())
    await asyncio.sleep(0.02)
    speaks.set()
    assert (await asking)[1].model == "a"
    await until_booked(route)
    assert breaker.admit(route.clock()) is not None
