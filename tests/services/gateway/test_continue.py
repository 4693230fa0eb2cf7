"""`on_broken_stream: continue`: who goes on with a broken answer, from where, how it is marked, and when it is not."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

import pytest

from app.services.gateway.attempt import RESUME_TOKENS, Call, Ended
from app.services.gateway.continuation import INSTRUCTION
from app.services.gateway.recover import BrokenOff
from app.services.gateway.retries import RetryBudget
from app.services.gateway.scripted import Say, ScriptedProvider
from graphs.errors import PilothouseError, UpstreamError, UpstreamRejected
from graphs.types import Completion, Continuation, Message, ToolProposal, Usage
from tests.services.gateway.chain import ACME, ASK, Books, Chain, chain

RESET = UpstreamError("reset")
HALF = Say(("One ", "two "), error=RESET)


def goes_on(scripts: dict[str, Any], **given: Any) -> Chain:
    return chain(scripts, on_broken_stream="continue", **given)


async def broken(route: Chain) -> tuple[list[str], PilothouseError]:
    """What left before the error, and the error."""
    heard: list[str] = []
    stream = route.gateway.stream(ASK, ACME)
    while True:
        try:
            heard.append((await anext(stream)).text)
        except PilothouseError as error:
            return heard, error


def requests(route: Chain, name: str) -> list[Any]:
    provider = route.targets[name].provider
    assert isinstance(provider, ScriptedProvider)
    return provider.requests


async def test_the_next_candidate_goes_on_and_the_completion_has_the_whole_text() -> None:
    route = goes_on({"a": [HALF], "b": ["three four"]})
    items = [item async for item in route.gateway.stream(ASK, ACME)]
    assert [type(item).__name__ for item in items] == ["Delta", "Delta", "Continuation", "Delta", "Completion"]
    assert [item.text for item in items] == ["One ", "two ", "three ", "four", "One two three four"]
    mark = items[2]
    assert isinstance(mark, Continuation)
    assert mark.model == "b"


async def test_it_is_shown_what_was_said_and_told_to_go_on() -> None:
    route = goes_on({"a": [HALF], "b": ["three"]})
    await route.ask()
    assert requests(route, "b")[0].messages == (
        *ASK.messages,
        Message("assistant", "One two "),
        Message("user", INSTRUCTION),
    )


async def test_each_attempt_is_booked_by_itself_and_the_longer_prompt_reserved() -> None:
    route = goes_on({"a": [HALF], "b": [Say(("three",), usage=Usage(50, 5))]})
    await route.ask()
    first, second = route.books.lines
    assert first.bill is not None
    assert second.bill is not None
    assert (first.bill.outcome, first.bill.usage.estimated, first.bill.usage.output_tokens > 0) == (
        "failed",
        True,
        True,
    )
    assert (second.bill.outcome, second.bill.usage) == ("ok", Usage(50, 5))
    assert second.charge.prompt_tokens > first.charge.prompt_tokens + RESUME_TOKENS
    assert [attempt.number for attempt in route.attempts] == [1, 2]


async def test_the_same_model_goes_on_where_it_is_the_only_one_and_a_retry_is_left() -> None:
    route = goes_on({"a": [HALF, "three"]}, retries=1)
    texts, completion = await route.ask()
    assert (texts, completion.text) == (["One ", "two ", "three"], "One two three")
    assert len(route.clock.slept) == 1


async def test_a_continuation_that_breaks_off_is_gone_on_with_again() -> None:
    route = goes_on({"a": [HALF], "b": [Say(("three ",), error=RESET)], "c": ["four"]})
    texts, completion = await route.ask()
    assert completion.text == "".join(texts) == "One two three four"
    assert requests(route, "c")[0].messages[-2] == Message("assistant", "One two three ")


async def test_a_candidate_that_fails_before_it_goes_on_leaves_no_mark() -> None:
    route = goes_on({"a": [HALF], "b": [RESET], "c": ["three"]})
    items = [item async for item in route.gateway.stream(ASK, ACME)]
    assert [item.model for item in items if isinstance(item, Continuation)] == ["c"]


async def test_an_answer_that_was_whole_but_for_its_end_is_marked_all_the_same() -> None:
    route = goes_on({"a": [HALF], "b": [Say(())]})
    items = [item async for item in route.gateway.stream(ASK, ACME)]
    assert isinstance(items[2], Continuation)
    assert (items[2].text, items[3].text) == ("", "One two ")


async def test_where_nobody_can_go_on_the_answer_is_broken() -> None:
    heard, error = await broken(goes_on({"a": [HALF], "b": [RESET]}))
    assert (heard, error.code) == (["One ", "two "], "upstream_broke_off")
    assert isinstance(error, BrokenOff)
    resting = goes_on({"a": [HALF], "b": ["three"]})
    resting.targets["b"].breaker.trip(0, resting.clock())
    assert isinstance((await broken(resting))[1], BrokenOff)


async def test_by_default_nothing_is_gone_on_with() -> None:
    route = chain({"a": [HALF], "b": ["three"]}, retries=3)
    assert isinstance((await broken(route))[1], BrokenOff)
    assert (route.asked("a"), route.asked("b")) == (1, 0)


async def test_an_answer_that_its_server_refused_half_way_is_not_put_to_another() -> None:
    """As where a filter of the vendor stops an answer: another model must not be used to get round it."""
    route = goes_on({"a": [Say(("One ",), error=UpstreamRejected("content filter"))], "b": ["two"]})
    assert isinstance((await broken(route))[1], BrokenOff)
    assert route.asked("b") == 0


async def test_half_a_json_value_is_not_gone_on_with() -> None:
    route = goes_on({"a": [HALF], "b": ["three"]})
    with pytest.raises(BrokenOff):
        await route.ask(replace(ASK, response_schema={"type": "object"}))
    assert route.asked("b") == 0


async def test_a_tool_call_of_the_model_that_goes_on_counts() -> None:
    call = ToolProposal("c1", "clock", {})
    route = goes_on({"a": [HALF], "b": [Say(("three",), tool_calls=(call,))]})
    assert (await route.ask())[1].tool_calls == (call,)


async def test_the_rest_may_have_the_tokens_that_are_left() -> None:
    route = goes_on({"a": [HALF], "b": ["three"]})
    await route.ask(replace(ASK, max_tokens=100))
    before = route.targets["b"].provider.count_tokens("One two ")
    assert requests(route, "b")[0].max_tokens == 100 - before


async def test_a_budget_that_does_not_cover_the_rest_leaves_the_answer_broken() -> None:
    class OneCall(Books):
        async def reserve(self, *given: Any) -> Any:
            self.grants = 0 if self.lines else None
            return await super().reserve(*given)

    route = goes_on({"a": [HALF], "b": ["three"]}, books=OneCall())
    heard, error = await broken(route)
    assert (heard, error.code, route.asked("b")) == (["One ", "two "], "upstream_broke_off", 0)


async def test_a_continuation_of_the_same_model_is_a_retry_for_the_budget() -> None:
    route = goes_on({"a": [HALF, "three"]}, retries=5, budget=RetryBudget(0, 0))
    assert isinstance((await broken(route))[1], BrokenOff)
    assert route.asked("a") == 1


@pytest.mark.parametrize(("choices", "mute"), [(2, False), (1, True)], ids=["two choices", "a tool call"])
async def test_what_is_no_single_text_is_not_gone_on_with(choices: int, mute: bool) -> None:
    """Pieces of two choices are no text to show, and half a tool call is with the client already."""
    route = goes_on({"a": [], "b": []})
    resumed: list[str] = []

    async def opened(_target: Any, _cap: int | None) -> AsyncGenerator[str, None]:
        yield "word"
        if mute:
            yield "call"
        raise RESET

    def resume(_target: Any, _cap: int | None, prefix: str) -> AsyncGenerator[str, None]:
        resumed.append(prefix)
        return opened(_target, _cap)

    def read(item: str) -> tuple[bool, str, Ended | None]:
        return True, item if item == "word" else "", None

    call = Call(
        payer=ACME,
        plan=route.gateway.plan(ASK, ACME)[0],
        task="chat",
        streamed=True,
        prompt_tokens=1,
        output_tokens=None,
        open=opened,
        read=read,
        count=lambda _target, text: len(text),
        choices=choices,
        resume=resume,
    )
    with pytest.raises(BrokenOff):
        _ = [item async for item in route.gateway.recovery.stream(call)]
    assert resumed == []


async def test_a_caller_that_leaves_during_the_continuation_closes_it() -> None:
    route = goes_on({"a": [HALF], "b": [Say(("three ", "four"), wait_between=asyncio.Event())]})
    stream = route.gateway.stream(ASK, ACME)
    for _ in range(3):
        assert not isinstance(await anext(stream), Completion)
    await stream.aclose()
    await route.gateway.recovery.close()
    assert route.books.told == [("a", "failed"), ("b", "cancelled")]
    provider: Any = route.targets["b"].provider
    assert provider.closed_early == 1
