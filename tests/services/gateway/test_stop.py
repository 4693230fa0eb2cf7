"""A model that an operator stops while it is called: what goes on, what ends, and whose cancellation is whose."""

import asyncio

import pytest

from app.services.gateway.scripted import Say
from graphs.errors import Forbidden
from graphs.types import Completion, Delta
from tests.services.gateway.chain import ACME, ASK, Books, Chain, chain

OFF = Forbidden("this model is switched off", field="model")


def silent() -> Say:
    """Nothing is ever said."""
    return Say(("Never",), wait=asyncio.Event())


def half() -> Say:
    return Say(("One ", "two"), wait_between=asyncio.Event())


async def asked(route: Chain, name: str) -> None:
    while not route.asked(name):
        await asyncio.sleep(0)


@pytest.mark.parametrize("hedge_after_s", [None, 60])
async def test_a_call_that_waits_goes_on_with_the_next_candidate_and_its_task_is_not_cancelled(
    hedge_after_s: float | None,
) -> None:
    route = chain({"a": lambda _: silent(), "b": ["Hi"]}, hedge_after_s=hedge_after_s)
    call = asyncio.create_task(route.ask())
    await asked(route, "a")
    route.gateway.recovery.stop("a", OFF)
    assert (await call)[1].text == "Hi"
    assert call.cancelling() == 0
    assert route.books.told == [("a", "failed"), ("b", "ok")]
    assert route.books.bills[0].error_code == OFF.code
    assert route.books.bills[0].usage.input_tokens > 0  # it was reading the prompt
    assert route.state("a") == "closed", "nothing is wrong with the model's server"


async def test_a_model_that_is_busy_leaving_is_stopped_before_its_next_piece() -> None:
    route = chain({"a": [Say(("One ", "two ", "three"))], "b": ["Hi"]})
    stream = route.gateway.stream(ASK, ACME)
    assert await anext(stream) == Delta("One ")
    route.gateway.recovery.stop("a", OFF)
    with pytest.raises(Forbidden):
        await anext(stream)
    assert route.books.told == [("a", "failed")]


async def test_an_answer_that_is_whole_is_left_alone() -> None:
    route = chain({"a": ["Hi"], "b": ["Ho"]})
    items = []
    async for item in route.gateway.stream(ASK, ACME):
        items.append(item)
        if isinstance(item, Completion):
            route.gateway.recovery.stop("a", OFF)
    assert route.books.told == [("a", "ok")]


async def test_another_model_and_its_calls_are_left_alone() -> None:
    route = chain({"a": [half()], "b": ["Hi"]})
    stream = route.gateway.stream(ASK, ACME)
    await anext(stream)
    route.gateway.recovery.stop("b", OFF)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_caller_that_goes_away_at_the_same_moment_is_gone() -> None:
    route = chain({"a": lambda _: silent(), "b": ["Hi"]})
    call = asyncio.create_task(route.ask())
    await asked(route, "a")
    route.gateway.recovery.stop("a", OFF)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await route.gateway.recovery.close()
    assert route.books.told == [("a", "cancelled")]


async def test_where_no_candidate_is_left_the_caller_hears_of_the_switch() -> None:
    route = chain({"a": lambda _: silent(), "b": lambda _: silent()})
    call = asyncio.create_task(route.ask())
    for name in ("a", "b"):
        await asked(route, name)
        route.gateway.recovery.stop(name, OFF)
    with pytest.raises(Forbidden) as raised:
        await call
    assert raised.value is OFF


async def test_a_candidate_that_is_off_by_now_is_passed_over() -> None:
    class Refuses(Books):
        async def reserve(self, payer, charge, tokens):  # type: ignore[no-untyped-def]
            if charge.model == "a":
                raise OFF
            return await super().reserve(payer, charge, tokens)

    route = chain({"a": ["Ho"], "b": ["Hi"]}, books=Refuses())
    assert (await route.ask())[1].text == "Hi"
    assert [attempt.number for attempt in route.attempts] == [1]
