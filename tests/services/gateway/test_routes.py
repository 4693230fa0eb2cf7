"""Which models may serve a call, in which order, and the reasons that are given for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config.load import ConfigInvalid, Fault, parse
from app.config.price import FREE, Price
from app.config.schema import Config, RouteConfig
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.latency import STALE_S
from app.services.gateway.meter import MeteredGateway
from app.services.gateway.routes import COUNTED_TOO_HIGH, Need, NoModelFits, Plan, Router, Target
from app.services.gateway.scorecard import Scorecard
from graphs.errors import Forbidden, Missing, PromptTooLong, UpstreamError
from graphs.types import ModelRequest, Task
from tests.services.gateway.chain import ACME, ASK, Books, Clock, chain, scripted
from tests.services.gateway.test_gateway import Trace

NAMES = ("a", "b", "c")


def dollars(input_usd: int, output_usd: int) -> Price:
    picos = 1_000_000
    return Price(input_usd * picos, output_usd * picos, input_usd * picos, input_usd * picos, "config")


def target(name: str, price: Price = FREE, **info: Any) -> Target:
    return Target(name, scripted(name, [], **info), price, Breaker(BreakerPolicy()))


def router(
    targets: Sequence[Target],
    quality: Mapping[tuple[str, Task], float] | None = None,
    clock: Clock | None = None,
    **config: Any,
) -> Router:
    names = tuple(each.name for each in targets)
    return Router(
        {each.name: each for each in targets},
        {"default": RouteConfig(candidates=names, **config)},
        members=lambda _: names,
        by_task={},
        default="default",
        quality=lambda model, task: (quality or {}).get((model, task)),
        monotonic=clock or Clock(),
    )


def names(plan: Plan) -> list[str]:
    return [each.name for each in plan.targets]


def test_by_order_the_candidates_stand_as_they_are_written_and_the_plan_says_so() -> None:
    plan = router([target(name) for name in "bac"]).plan("default", Need("chat", 10))
    assert names(plan) == ["b", "a", "c"]
    assert plan.reasons == ("in the route's order: b, a, c",)


def test_by_cost_the_cheapest_for_this_very_call_comes_first() -> None:
    reads_dear, writes_dear = target("reads", dollars(10, 1)), target("writes", dollars(1, 10))
    route = router([reads_dear, writes_dear], policy="cost")
    assert names(route.plan("default", Need("chat", 5_000, 100))) == ["writes", "reads"]
    plan = route.plan("default", Need("chat", 100, 2_000))
    assert names(plan) == ["reads", "writes"]
    assert plan.reasons == ("by cost: reads 3000 micro-dollars at most, writes 20100 micro-dollars at most",)


def test_by_latency_the_fastest_lately_comes_first_and_one_never_called_before_it() -> None:
    clock = Clock()
    slow, fast, new = (target(name) for name in ("slow", "fast", "new"))
    for _ in range(20):
        slow.latency.note(900, clock())
        fast.latency.note(20, clock())
    route = router([slow, fast, new], clock=clock, policy="latency")
    plan = route.plan("default", Need("chat", 10))
    assert names(plan) == ["new", "fast", "slow"]
    assert plan.reasons[0].startswith("by latency: new 0 ms at the 95th percentile, fast ")


def test_a_model_that_was_slow_long_ago_is_tried_again() -> None:
    clock = Clock()
    slow, fast = target("slow"), target("fast")
    slow.latency.note(900, clock())
    clock.now += 8 * STALE_S
    fast.latency.note(20, clock())
    route = router([slow, fast], clock=clock, policy="latency")
    assert names(route.plan("default", Need("chat", 10))) == ["slow", "fast"]
    slow.latency.note(900, clock())
    assert names(route.plan("default", Need("chat", 10))) == ["fast", "slow"]


def test_by_quality_the_best_at_this_task_comes_first() -> None:
    scores: dict[tuple[str, Task], float] = {("a", "rag"): 0.4, ("b", "rag"): 0.9, ("a", "chat"): 0.8}
    route = router([target(name) for name in NAMES], scores, policy="quality")
    plan = route.plan("default", Need("rag", 10))
    assert names(plan) == ["b", "a", "c"]
    assert plan.reasons == ("by quality: b 0.9 at rag, a 0.4 at rag, c 0 at rag",)
    assert names(route.plan("default", Need("chat", 10))) == ["a", "b", "c"]


def test_a_route_that_demands_a_quality_leaves_out_what_is_worse_or_was_never_measured() -> None:
    scores: dict[tuple[str, Task], float] = {("a", "rag"): 0.59, ("b", "rag"): 0.6}
    route = router([target(name) for name in NAMES], scores, min_quality=0.6)
    plan = route.plan("default", Need("rag", 10))
    assert names(plan) == ["b"]
    assert plan.reasons == (
        "a: scores 0.59 at rag, 0.6 is demanded",
        "c: was never measured at rag, 0.6 is demanded",
    )
    with pytest.raises(NoModelFits, match="b: was never measured at chat"):
        route.plan("default", Need("chat", 10))


def test_the_scores_are_those_of_the_scorecard_that_evals_write(tmp_path: Path) -> None:
    path = tmp_path / "scorecard.json"
    path.write_text('{"models": {"b": {"rag": {"quality": 0.7, "n": 50}}}}')
    each = [target("a"), target("b")]
    route = Router(
        {one.name: one for one in each},
        {"default": RouteConfig(candidates=("a", "b"), min_quality=0.6)},
        members=lambda _: ("a", "b"),
        by_task={},
        default="default",
        quality=Scorecard(path),
    )
    assert names(route.plan("default", Need("rag", 10))) == ["b"]


def test_u15_a_candidate_whose_window_is_too_small_is_passed_over() -> None:
    small, large = target("small", context_tokens=1_000), target("large", context_tokens=10_000)
    route = router([small, large])
    assert names(route.plan("default", Need("chat", 900))) == ["small", "large"]
    plan = route.plan("default", Need("chat", 1_001))
    assert names(plan) == ["large"]
    assert plan.reasons == ("small: window too small",)
    assert names(route.plan("default", Need("chat", 900, 200))) == ["large"]  # the answer has to fit as well
    assert names(route.plan("default", Need("chat", 900))) == ["small", "large"]


def test_u15_a_prompt_that_may_have_been_counted_too_high_is_tried_and_one_that_cannot_fit_is_refused() -> None:
    route = router([target("small", context_tokens=1_000), target("large", context_tokens=10_000)])
    assert names(route.plan("default", Need("chat", 10_000 * COUNTED_TOO_HIGH))) == ["large"]
    with pytest.raises(PromptTooLong, match="the largest window here has 10000"):
        route.plan("default", Need("chat", 10_000 * COUNTED_TOO_HIGH + 1))


def test_a07_a_caller_gets_the_models_of_its_list_whatever_the_route_holds() -> None:
    route = router([target(name) for name in NAMES])
    assert names(route.plan("default", Need("chat", 10, allowed=frozenset({"c", "a"})))) == ["a", "c"]
    assert names(route.plan("default", Need("chat", 10))) == ["a", "b", "c"]
    for name in ("default", "b"):
        with pytest.raises(Forbidden):
            route.plan(name, Need("chat", 10, allowed=frozenset({"z"})))
    with pytest.raises(Missing):
        route.plan("z", Need("chat", 10, allowed=frozenset({"z"})))


def test_a_models_own_name_is_a_route_of_it_alone() -> None:
    assert names(router([target(name) for name in NAMES]).plan("b", Need("chat", 10))) == ["b"]


def test_a_plan_that_changes_from_call_to_call_is_made_anew() -> None:
    scores: dict[tuple[str, Task], float] = {("a", "rag"): 0.9, ("b", "rag"): 0.9}
    route = router([target("a"), target("b")], scores, min_quality=0.6)
    assert names(route.plan("default", Need("rag", 10))) == ["a", "b"]
    scores["a", "rag"] = 0.1
    assert names(route.plan("default", Need("rag", 10))) == ["b"]


def test_a_plan_that_does_not_change_is_made_once_for_each_list_of_models() -> None:
    route = router([target(name) for name in NAMES])
    first = route.plan("default", Need("chat", 10))
    assert route.plan("default", Need("rag", 20)) is first
    assert route.plan("default", Need("chat", 10, allowed=frozenset({"a"}))) is not first


async def test_the_reasons_and_the_attempts_of_a_run_are_kept_in_its_meter() -> None:
    route = chain({"a": [UpstreamError("503")], "b": ["Hello"]})
    trace = Trace()
    meter = MeteredGateway(route.gateway, trace, payer=ACME)
    await meter.complete(ASK)
    assert meter.reasons == ("in the route's order: a, b",)
    assert [(call.model, call.error_code, call.attempt, call.route) for call in meter.calls] == [
        ("a", "upstream_error", 1, "default"),
        ("b", None, 2, "default"),
    ]
    assert meter.answered_by == ("b", "1", "scripted")
    assert [attempt["model"] for attempt in trace.spans[0].attributes["attempts"]] == ["a", "b"]


async def test_a07_a_model_that_the_caller_may_not_use_is_not_reached_by_its_own_name() -> None:
    route = chain({"a": ["Hello"], "b": ["Hi"]}, books=Books(models=frozenset({"a"})))
    with pytest.raises(Forbidden):
        await route.gateway.complete(ModelRequest(ASK.messages, model="b"), ACME)
    assert (await route.ask())[1].model == "a"


ROUTE_NAMES = st.sampled_from(["r1", "r2", "r3", "r4", "r5"])


@settings(max_examples=80, deadline=None)
@given(
    st.dictionaries(
        ROUTE_NAMES, st.lists(st.one_of(ROUTE_NAMES, st.sampled_from(["m1", "m2", "m3"])), min_size=1, max_size=5)
    )
)
def test_u15_no_configuration_leads_a_call_round_in_a_circle(routes: dict[str, list[str]]) -> None:
    """Any file is either refused with the place of the circle named, or every route of it ends in models, each once."""
    file = {
        "providers": {"lab": {"kind": "scripted"}},
        "models": {name: {"provider": "lab", "model": name} for name in ("m1", "m2", "m3")},
        "routes": {name: {"candidates": candidates} for name, candidates in routes.items()},
    }
    config: Config | None = None
    faults: tuple[Fault, ...] = ()
    try:
        config = parse(yaml.safe_dump(file), {})
    except ConfigInvalid as error:
        faults = error.faults
    assert all("falls back on itself" in fault.message or "there is no" in fault.message for fault in faults)
    if config is None:
        assert faults
        return
    for name in routes:
        found = config.model_names(name)
        assert found
        assert len(found) == len(set(found))
        assert set(found) <= set(config.models)
