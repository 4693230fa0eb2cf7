"""What is tried again, what is not, where the next model takes over, and that every attempt is judged and booked."""

import asyncio
import math
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from app.config.price import FREE, Price
from app.services.breaker import BreakerPolicy
from app.services.gateway.attempt import LONGEST_COOL_DOWN_S, SHORT_COOL_DOWN_S, Call, Ended
from app.services.gateway.gateway import last
from app.services.gateway.recover import (
    CLOCK_SLACK_S,
    FIRST_BACKOFF_S,
    LONGEST_WAIT_S,
    AllUnavailable,
    BrokenOff,
    Recovery,
)
from app.services.gateway.retries import RetryBudget
from app.services.gateway.scripted import Say
from graphs.errors import (
    Forbidden,
    PromptTooLong,
    QuotaExhausted,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)
from graphs.types import Completion, Delta, ModelRequest, Usage
from tests.services.gateway.chain import ACME, ASK, Books, Chain, chain

DOWN = UpstreamError("503")
BUSY = UpstreamRateLimited("429")
SENSITIVE = BreakerPolicy(min_calls=1)


async def test_the_next_candidate_answers_where_the_first_is_down() -> None:
    route = chain({"a": [DOWN], "b": ["Hello"]})
    texts, completion = await route.ask()
    assert (texts, completion.model) == (["Hello"], "b")
    assert route.books.told == [("a", "failed"), ("b", "ok")]
    assert [attempt.number for attempt in route.attempts] == [1, 2]


async def test_a_failed_call_is_tried_again_with_full_jitter_that_doubles() -> None:
    low_and_high: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        low_and_high.append((low, high))
        return high / 2

    route = chain({"a": [DOWN, DOWN, "Hello"]}, retries=2, uniform=uniform)
    await route.ask()
    assert low_and_high == [(0, FIRST_BACKOFF_S), (0, 2 * FIRST_BACKOFF_S)]
    assert route.clock.slept == [FIRST_BACKOFF_S / 2, FIRST_BACKOFF_S]


async def test_a_candidate_is_tried_no_more_than_its_retries_and_then_the_next() -> None:
    route = chain({"a": [DOWN] * 9, "b": [DOWN] * 9}, retries=2)
    with pytest.raises(UpstreamError):
        await route.ask()
    assert (route.asked("a"), route.asked("b")) == (3, 3)


@pytest.mark.parametrize(
    ("asked_s", "waited_s"),
    [
        (2.0, 2.0 + CLOCK_SLACK_S),
        (0.0, CLOCK_SLACK_S),
        (None, SHORT_COOL_DOWN_S + CLOCK_SLACK_S),
        (-1.0, SHORT_COOL_DOWN_S + CLOCK_SLACK_S),
        (math.nan, SHORT_COOL_DOWN_S + CLOCK_SLACK_S),
        (LONGEST_WAIT_S + 1, None),
        (1e9, None),
        (math.inf, SHORT_COOL_DOWN_S + CLOCK_SLACK_S),
    ],
)
async def test_u04_a_429_is_waited_for_as_long_as_it_asks_within_our_cap(
    asked_s: float | None, waited_s: float | None
) -> None:
    busy = UpstreamRateLimited("429", retry_after_s=asked_s)
    route = chain({"a": [busy, "Hello"]}, retries=1, uniform=lambda *_: 0.0)
    if waited_s is None:
        with pytest.raises(UpstreamRateLimited):
            await route.ask()
        assert route.clock.slept == []
        assert asked_s is not None
        rest_s = route.targets["a"].breaker.wait_s(route.clock())
        assert rest_s == pytest.approx(min(asked_s, LONGEST_COOL_DOWN_S))
    else:
        await route.ask()
        assert route.clock.slept == [pytest.approx(waited_s)]


async def test_u04_a_429_goes_to_the_next_candidate_at_once_and_cools_the_first_down_for_everybody() -> None:
    route = chain({"a": [UpstreamRateLimited("429", retry_after_s=3)], "b": lambda _: "Hello"}, retries=2)
    await route.ask()
    await route.ask()
    assert (route.asked("a"), route.asked("b"), route.clock.slept) == (1, 2, [])
    assert route.state("a") == "closed"  # no failure of its own
    route.clock.now += 3
    with pytest.raises(UpstreamRejected):  # its script has run out: it was asked again
        await route.ask()


async def test_a_429_is_waited_for_where_every_other_candidate_rests() -> None:
    route = chain({"a": [UpstreamRateLimited("429", retry_after_s=3), "Hello"], "b": ["Hi"]}, retries=1)
    route.targets["b"].breaker.trip(0, route.clock())
    assert (await route.ask())[1].model == "a"
    assert len(route.clock.slept) == 1


async def test_a_server_that_fails_and_says_for_how_long_is_left_alone_for_so_long() -> None:
    route = chain({"a": [UpstreamError("503", retry_after_s=5)], "b": lambda _: "Hello"}, retries=2)
    await route.ask()
    assert route.clock.slept == []
    assert route.targets["a"].breaker.wait_s(route.clock()) == 5


@pytest.mark.parametrize(
    ("error", "falls_back", "state"),
    [
        (UpstreamRejected("400"), False, "closed"),
        (UpstreamUnauthorized("401"), True, "open"),
        (UpstreamNotFound("404"), True, "open"),
        (UpstreamTooLong("413"), True, "closed"),
        (UpstreamError("500"), True, "open"),
        (UpstreamTimeout("504"), True, "open"),
        (UpstreamRateLimited("429"), True, "closed"),
    ],
    ids=lambda value: getattr(value, "code", str(value)),
)
async def test_u05_only_what_another_model_can_mend_goes_on_and_only_a_servers_fault_counts(
    error: UpstreamError, falls_back: bool, state: str
) -> None:
    route = chain({"a": [error], "b": ["Hello"]}, policy=SENSITIVE)
    if falls_back:
        assert (await route.ask())[1].model == "b"
    else:
        with pytest.raises(type(error)):
            await route.ask()
        assert route.asked("b") == 0
    assert route.state("a") == state


async def test_u05_a_400_is_never_retried_and_no_number_of_them_opens_the_breaker() -> None:
    route = chain({"a": lambda _: UpstreamRejected("400")}, retries=5)
    for _ in range(50):
        with pytest.raises(UpstreamRejected):
            await route.ask()
    assert (route.asked("a"), route.state("a"), route.clock.slept) == (50, "closed", [])


async def test_u05_a_refused_credential_disables_the_model_at_once_and_is_told(caplog: Any) -> None:
    changes: list[tuple[str, str]] = []
    route = chain({"a": [UpstreamUnauthorized("401")], "b": lambda _: "Hello"}, retries=3)
    route.targets["a"].breaker.on_change = lambda state, cause: changes.append((state, cause))
    await route.ask()
    await route.ask()
    assert (route.asked("a"), route.asked("b")) == (1, 2)
    assert changes == [("open", "credential")]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


async def test_a_prompt_that_no_window_holds_is_the_callers_to_mend() -> None:
    route = chain({"a": [UpstreamTooLong("long")], "b": [UpstreamTooLong("long too")]}, retries=2)
    with pytest.raises(PromptTooLong):
        await route.ask()
    assert (route.asked("a"), route.asked("b")) == (1, 1)


async def test_r14_a_storm_of_429_makes_retries_of_a_tenth_of_the_traffic_and_a_few() -> None:
    route = chain({"a": lambda _: UpstreamRateLimited("429", retry_after_s=0)}, retries=10, budget=RetryBudget(0.1, 5))
    calls = 500
    for _ in range(calls):
        with pytest.raises(UpstreamRateLimited):
            await route.ask()
    retries = route.asked("a") - calls
    floor = 5 + 5 * (route.clock() - 1_000) / 60
    assert calls * 0.1 <= retries <= calls * 0.1 + floor


async def test_without_a_share_and_a_floor_nothing_is_retried() -> None:
    route = chain({"a": lambda _: DOWN}, retries=10, budget=RetryBudget(0, 0))
    with pytest.raises(UpstreamError):
        await route.ask()
    assert route.asked("a") == 1


async def test_u12_all_ejected_is_told_at_once_with_the_time_to_wait() -> None:
    route = chain({"a": [DOWN], "b": [DOWN]}, policy=BreakerPolicy(min_calls=1, open_s=7))
    with pytest.raises(UpstreamError):
        await route.ask()
    with pytest.raises(AllUnavailable) as raised:
        await asyncio.wait_for(route.ask(), 1)
    assert raised.value.retry_after_s == pytest.approx(7)
    assert (route.asked("a"), route.asked("b"), route.clock.slept) == (1, 1, [])


async def test_u13_of_twenty_calls_that_wait_for_a_model_one_probes_it_and_the_others_go_on() -> None:
    speaks = asyncio.Event()
    route = chain({"a": [DOWN, Say(("Hello",), wait=speaks)], "b": lambda _: "Hi"}, policy=SENSITIVE)
    await route.ask()
    route.clock.now += 6
    calls = [asyncio.ensure_future(route.ask()) for _ in range(20)]
    while sum(call.done() for call in calls) < 19:
        await asyncio.sleep(0)
    assert route.asked("a") == 2
    speaks.set()
    models = [completion.model for _, completion in await asyncio.gather(*calls)]
    assert (models.count("a"), models.count("b")) == (1, 19)
    assert route.state("a") == "closed"


async def test_u14_no_number_of_callers_who_leave_opens_the_breaker() -> None:
    route = chain({"a": lambda _: Say(("Hello",), wait=asyncio.Event())}, policy=SENSITIVE)
    for _ in range(10):
        call = asyncio.ensure_future(route.ask())
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    await route.gateway.recovery.close()
    assert route.state("a") == "closed"
    assert route.books.told == [("a", "cancelled")] * 10


async def test_u14_a_probe_whose_caller_leaves_gives_its_place_back() -> None:
    route = chain({"a": [DOWN, Say(("x",), wait=asyncio.Event()), "Hello"]}, policy=SENSITIVE)
    with pytest.raises(UpstreamError):
        await route.ask()
    route.clock.now += 6
    call = asyncio.ensure_future(route.ask())
    await asyncio.sleep(0)
    with pytest.raises(AllUnavailable):
        await route.ask()
    call.cancel()
    await asyncio.wait([call])
    assert (await route.ask())[1].text == "Hello"


async def test_u16_a_model_that_answers_too_slowly_is_left_alone_without_a_single_error() -> None:
    policy = BreakerPolicy(min_calls=3, slow_call_s=1.0)
    route = chain({"a": lambda _: "Hello", "b": lambda _: "Hi"}, policy=policy)
    provider, clock = route.targets["a"].provider, route.clock
    real = provider.stream

    async def slowly(request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
        clock.now += 2
        async for item in real(request):
            yield item

    for _ in range(3):
        await route.ask()
    assert route.state("a") == "closed"
    provider.stream = slowly  # type: ignore[method-assign]
    for _ in range(14):
        await route.ask()
    assert route.asked("b") > 0
    assert all(bill.outcome == "ok" for bill in route.books.bills)


async def test_u16_a_long_answer_that_began_in_time_is_not_slow() -> None:
    route = chain({"a": lambda _: "Hello you"}, policy=BreakerPolicy(min_calls=1, slow_call_s=1.0))
    for _ in range(5):
        async for item in route.gateway.stream(ASK, ACME):
            if isinstance(item, Delta):
                route.clock.now += 30
    assert route.state("a") == "closed"


async def test_u06_an_answer_that_broke_off_is_an_error_and_never_begun_again() -> None:
    broken = Say(("Hello ", "wor"), error=UpstreamError("reset"))
    route = chain({"a": [broken], "b": ["Other"]}, retries=3)
    stream = route.gateway.stream(ASK, ACME)
    heard = [(await anext(stream)).text, (await anext(stream)).text]
    with pytest.raises(BrokenOff):
        await anext(stream)
    assert (heard, route.asked("a"), route.asked("b")) == (["Hello ", "wor"], 1, 0)
    (bill,) = route.books.bills
    assert (bill.outcome, bill.usage.estimated) == ("failed", True)
    assert bill.cost_micros > 0


async def test_what_nobody_has_seen_yet_may_break_off_and_be_tried_again() -> None:
    broken = Say(("Hello ", "wor"), error=UpstreamError("reset"))
    route = chain({"a": [broken], "b": ["Other"]})
    assert (await route.gateway.complete(ASK, ACME)).text == "Other"
    assert route.books.told == [("a", "failed"), ("b", "ok")]


async def test_an_answer_without_an_end_is_a_failure_of_the_server() -> None:
    class Endless:
        def __init__(self, info: Any) -> None:
            self.info = info

        def count_tokens(self, text: str) -> int:
            return len(text)

        async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta | Completion, None]:
            yield Delta("Hello")

        async def close(self) -> None:
            return None

    route = chain({"a": Endless(chain({"a": []}).targets["a"].info)}, policy=SENSITIVE)
    with pytest.raises(BrokenOff):
        await route.ask()
    assert route.state("a") == "open"


async def test_r13_each_attempt_is_booked_with_its_own_cost_and_the_caller_sees_their_sum() -> None:
    spent = Usage(100, 10)
    late = Say((), error=UpstreamTimeout("late"))
    route = chain({"a": [late], "b": [DOWN], "c": [Say(("Hello",), usage=spent)]})
    await route.ask()
    late_bill, down_bill, good_bill = route.books.bills
    assert late_bill.usage.input_tokens > 0  # it was being read when we gave up
    assert (down_bill.usage, down_bill.cost_micros) == (Usage(), 0)
    assert (good_bill.usage, good_bill.cost_micros) == (spent, 100 * 2 + 10 * 8)
    assert sum(attempt.bill.cost_micros for attempt in route.attempts) == sum(b.cost_micros for b in route.books.bills)
    assert [line.settled for line in route.books.lines] == [1, 1, 1]


async def test_r13_a_call_cancelled_before_its_first_token_pays_for_the_prompt_alone() -> None:
    route = chain({"a": [Say(("Hello",), wait=asyncio.Event())]})
    call = asyncio.ensure_future(route.ask())
    await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.wait([call])
    await route.gateway.recovery.close()
    (bill,) = route.books.bills
    assert (bill.outcome, bill.usage.output_tokens, bill.first_token_ms) == ("cancelled", 0, None)
    assert bill.usage.input_tokens > 0


async def test_c01_a_client_that_leaves_closes_the_upstream_at_once_and_its_cost_is_on_the_books() -> None:
    route = chain({"a": [Say(("Hello", "you"), wait_between=asyncio.Event())]})
    stream = route.gateway.stream(ASK, ACME)
    await anext(stream)
    await stream.aclose()
    provider: Any = route.targets["a"].provider
    assert provider.closed_early == 1
    await route.gateway.recovery.close()
    (line,) = route.books.lines
    assert line.bill is not None
    assert (line.settled, line.bill.outcome) == (1, "cancelled")
    assert line.bill.cost_micros > 0


async def test_c02_a_stream_that_nobody_ever_reads_has_reserved_nothing() -> None:
    route = chain({"a": ["Hello"]})
    stream = route.gateway.stream(ASK, ACME)
    await stream.aclose()
    assert (route.books.lines, route.asked("a")) == ([], 0)


async def test_nothing_leaves_before_the_attempt_is_on_disk_and_the_end_not_before_it_is_settled() -> None:
    route = chain({"a": ["Hello you"]})
    async for item in route.gateway.stream(ASK, ACME):
        (line,) = route.books.lines
        assert line.recorded
        assert line.settled == isinstance(item, Completion)


@pytest.mark.parametrize(
    ("streamed", "first"),
    [(True, ["role", DOWN]), (False, ["role", DOWN]), (False, ["role", "word", DOWN])],
    ids=["streamed", "whole", "whole after a word"],
)
async def test_what_a_failed_attempt_gave_before_it_counted_never_leaves(streamed: bool, first: list[Any]) -> None:
    """A role chunk is no answer: with it out, the client would see two beginnings."""
    route = chain({"a": ["unused"], "b": ["unused"]})
    recovery, plan = route.gateway.recovery, route.gateway.plan(ASK, ACME)[0]
    scripts = {"a": first, "b": ["role", "word", "end"]}

    async def opened(target: Any, _cap: int | None) -> AsyncGenerator[str, None]:
        for item in scripts[target.name]:
            if isinstance(item, Exception):
                raise item
            yield f"{target.name} {item}"

    call = Call(
        payer=ACME,
        plan=plan,
        task="chat",
        streamed=streamed,
        prompt_tokens=1,
        output_tokens=1,
        open=opened,
        read=lambda item: ("word" in item, "w" if "word" in item else "", Ended(None) if "end" in item else None),
        count=lambda _target, text: len(text),
    )
    assert [item async for item in recovery.stream(call)] == ["b role", "b word", "b end"]


async def test_a_budget_too_small_for_the_first_candidate_may_do_for_a_cheaper_one() -> None:
    route = chain({"a": ["dear"], "b": ["free"]}, books=Books(grants=10), prices={"b": FREE})
    assert (await route.ask())[1].text == "free"
    assert route.asked("a") == 0
    with pytest.raises(QuotaExhausted):
        await chain({"a": ["dear"]}, books=Books(grants=10)).ask()


async def test_a_failed_server_is_told_rather_than_the_budget_that_the_next_did_not_fit() -> None:
    books = Books(grants=1_000_000)
    route = chain({"a": [DOWN], "b": ["dear"]}, books=books, prices={"b": Price(10**12, 0, 0, 0, "config")})
    with pytest.raises(UpstreamError):
        await route.ask()
    assert route.asked("b") == 0


async def test_a_budget_that_pays_for_a_part_of_the_answer_caps_it() -> None:
    route = chain({"a": ["Hello"]}, books=Books(grants=1_000))
    await route.ask()
    provider: Any = route.targets["a"].provider
    (line,) = route.books.lines
    assert provider.requests[0].max_tokens == (1_000 - line.charge.prompt_micros) // 8
    assert line.charge.wanted_micros > 1_000


async def test_a_fault_of_our_own_books_is_not_the_models_and_nothing_is_tried_on_credit() -> None:
    asked = []

    class Closed(Books):
        async def reserve(self, *given: Any) -> Any:
            asked.append(given)
            raise UpstreamError("the ledger is away")

    route = chain({"a": ["Hello"], "b": ["Hello"]}, books=Closed(), policy=SENSITIVE, retries=3)
    with pytest.raises(UpstreamError, match="the ledger is away"):
        await route.ask()
    assert (route.asked("a"), route.asked("b"), route.state("a"), len(asked)) == (0, 0, "closed", 1)


async def test_an_answer_that_cannot_be_settled_is_an_error_and_is_not_asked_for_again() -> None:
    class Torn(Books):
        async def reserve(self, *given: Any) -> Any:
            hold = await super().reserve(*given)

            async def settle(_: Any) -> None:
                raise UpstreamError("the ledger is away")

            hold.settle = settle
            return hold

    route = chain({"a": lambda _: "Hello", "b": lambda _: "Hi"}, books=Torn(), retries=3, policy=SENSITIVE)
    with pytest.raises(UpstreamError, match="the ledger is away"):
        await route.gateway.complete(ASK, ACME)
    with pytest.raises(UpstreamError, match="the ledger is away"):
        await route.ask()
    assert (route.asked("a"), route.asked("b"), route.state("a")) == (2, 0, "closed")


async def test_a_settlement_that_fails_behind_a_failed_attempt_does_not_hide_its_error(caplog: Any) -> None:
    class Torn(Books):
        async def reserve(self, *given: Any) -> Any:
            hold = await super().reserve(*given)

            async def settle(_: Any) -> None:
                raise UpstreamError("the ledger is away")

            hold.settle = settle
            return hold

    with pytest.raises(UpstreamTimeout):
        await chain({"a": [UpstreamTimeout("late")]}, books=Torn()).ask()
    assert "could not be settled" in caplog.text


async def test_an_observer_hears_of_every_attempt_once() -> None:
    route = chain({"a": [DOWN, DOWN], "b": ["Hello"]}, retries=1)
    heard: list[Any] = []
    route.gateway.recovery.observe(heard.append)
    await route.ask()
    assert heard == route.attempts
    assert [(attempt.target.name, attempt.bill.outcome) for attempt in heard] == [
        ("a", "failed"),
        ("a", "failed"),
        ("b", "ok"),
    ]


async def test_a07_no_way_of_recovering_leads_to_a_model_that_the_caller_may_not_use() -> None:
    only_a = Books(models=frozenset({"a"}))
    broken = Say(("Half ",), error=DOWN)
    scripts: dict[str, Any] = {"a": lambda _: DOWN, "b": lambda _: "Hello"}
    fallback = chain(scripts, books=only_a, retries=1)
    hedge = chain({**scripts, "a": lambda _: Say(("Slow",), wait=asyncio.Event())}, books=only_a, hedge_after_s=0.001)
    goes_on = chain({**scripts, "a": lambda _: broken}, books=only_a, on_broken_stream="continue")
    with pytest.raises(UpstreamError):
        await fallback.ask()
    with pytest.raises(BrokenOff):
        await goes_on.ask()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hedge.ask(), 0.05)
    for route in (fallback, hedge, goes_on):
        assert route.asked("b") == 0
        with pytest.raises(Forbidden):
            await route.gateway.complete(ModelRequest(ASK.messages, model="b"), ACME)


async def test_closing_waits_for_what_is_still_being_booked() -> None:
    opens = asyncio.Event()

    class Slow(Books):
        async def reserve(self, *given: Any) -> Any:
            hold = await super().reserve(*given)
            real = hold.settle

            async def settle(bill: Any) -> None:
                await opens.wait()
                await real(bill)

            hold.settle = settle
            return hold

    route: Chain = chain({"a": [Say(("Hello", "you"), wait_between=asyncio.Event())]}, books=Slow())
    stream = route.gateway.stream(ASK, ACME)
    await anext(stream)
    await stream.aclose()
    closing = asyncio.ensure_future(route.gateway.recovery.close())
    await asyncio.sleep(0)
    assert not closing.done()
    opens.set()
    await closing
    assert route.books.told == [("a", "cancelled")]


def test_the_retry_budget_refills_by_the_minute_and_never_goes_below_nothing() -> None:
    budget = RetryBudget(0.0, 6)
    assert [budget.take(0.0) for _ in range(7)] == [True] * 6 + [False]
    assert not budget.take(9.0)
    assert budget.take(10.5)
    assert [budget.take(10_000.0) for _ in range(7)] == [True] * 6 + [False]


async def test_the_stream_that_ends_is_closed_to_the_last_generator() -> None:
    route = chain({"a": ["Hello you"]})
    assert (await last(route.gateway.stream(ASK, ACME))).text == "Hello you"
    assert isinstance(route.gateway.recovery, Recovery)
    provider: Any = route.targets["a"].provider
    assert provider.closed_early == 0
