"""One timer for all deadlines of a call, whatever task waits and however the deadlines move."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from app.config.schema import RouteConfig
from app.services.gateway.patience import Patience
from graphs.errors import UpstreamTimeout

SHORT_S, LONG_S = 0.05, 30.0


def route(**seconds: float) -> RouteConfig:
    given = {"timeout_s": LONG_S, "between_tokens_timeout_s": LONG_S, **seconds}
    return RouteConfig(candidates=("m",), **given)  # type: ignore[arg-type]


async def numbers(count: int, *, then_waits: bool = True, every_s: float = 0.0) -> AsyncGenerator[int, None]:
    for number in range(count):
        await asyncio.sleep(every_s)
        yield number
    if then_waits:
        await asyncio.Event().wait()


async def heard(items: AsyncGenerator[int, None], within_s: float = 10) -> tuple[list[int], str]:
    got: list[int] = []
    try:
        async with asyncio.timeout(within_s):
            async for item in items:
                got.append(item)  # noqa: PERF401 - what came before an error counts
    except UpstreamTimeout as error:
        return got, error.message
    return got, ""


@pytest.mark.parametrize(
    ("count", "seconds", "waited"),
    [
        (0, {"first_token_timeout_s": SHORT_S}, "the first token"),
        (0, {"timeout_s": SHORT_S}, "the whole answer"),
        (3, {"between_tokens_timeout_s": SHORT_S}, "the next token"),
        (3, {"between_tokens_timeout_s": SHORT_S, "first_token_timeout_s": LONG_S}, "the next token"),
        (3, {"timeout_s": 4 * SHORT_S}, "the whole answer"),
    ],
)
async def test_each_deadline_ends_the_wait_and_is_named(count: int, seconds: dict[str, float], waited: str) -> None:
    got, told = await heard(Patience("m", route(**seconds)).kept(numbers(count)))
    assert (got, told) == (list(range(count)), f"m took too long for {waited}")


async def test_tokens_in_time_put_the_deadline_off_and_the_whole_still_ends_it() -> None:
    config = route(between_tokens_timeout_s=0.2, timeout_s=0.5)
    got, told = await heard(Patience("m", config).kept(numbers(1_000, every_s=0.02)))
    assert len(got) > 5
    assert told.endswith("the whole answer")


async def test_an_answer_in_time_is_whole_and_leaves_no_timer() -> None:
    patience = Patience("m", route())
    assert await heard(patience.kept(numbers(3, then_waits=False))) == ([0, 1, 2], "")
    assert patience._timer is None


async def test_a_slow_caller_is_not_the_models_delay() -> None:
    items = Patience("m", route(between_tokens_timeout_s=SHORT_S)).kept(numbers(3, then_waits=False))
    got = []
    async for item in items:
        got.append(item)
        await asyncio.sleep(2 * SHORT_S)
    assert got == [0, 1, 2]


async def test_each_item_may_be_waited_for_by_another_task() -> None:
    items = Patience("m", route(between_tokens_timeout_s=SHORT_S)).kept(numbers(1))
    assert await asyncio.create_task(anext(items)) == 0  # type: ignore[arg-type]
    with pytest.raises(UpstreamTimeout, match="the next token"):
        await asyncio.create_task(anext(items))  # type: ignore[arg-type]


async def test_a_caller_that_is_cancelled_is_cancelled_and_not_late() -> None:
    waiting = asyncio.ensure_future(heard(Patience("m", route()).kept(numbers(1))))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_deadline_of_the_caller_around_it_stays_the_callers() -> None:
    with pytest.raises(TimeoutError):
        await heard(Patience("m", route()).kept(numbers(1)), within_s=SHORT_S)


async def test_a_task_that_met_a_deadline_works_on() -> None:
    await heard(Patience("m", route(timeout_s=SHORT_S)).kept(numbers(0)))
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_the_source_is_closed_whatever_ends_the_wait() -> None:
    for stop in ("deadline", "leave"):
        source = numbers(1)
        items = Patience("m", route(between_tokens_timeout_s=SHORT_S)).kept(source)
        await anext(items)
        if stop == "deadline":
            with pytest.raises(UpstreamTimeout):
                await anext(items)
        else:
            await items.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(source)
