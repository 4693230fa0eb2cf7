"""The gateway's routing and the bill that a run's meter keeps."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from app.services.gateway.gateway import ModelGateway, last
from app.services.gateway.meter import MeteredGateway
from app.services.gateway.scripted import SCRIPTED, Line, Say, ScriptedGateway, ScriptedProvider
from graphs.context import Span
from graphs.errors import Missing, UpstreamError, UpstreamRejected, UpstreamTimeout
from graphs.types import Completion, Delta, Message, ModelRequest, ToolProposal, Usage

ASK = ModelRequest(messages=(Message("user", "Say hello"),))
SPENT = Usage(19, 3)


class Recorded:
    def __init__(self, name: str, kind: str, **attributes: Any) -> None:
        self.name, self.kind, self.attributes, self.error = name, kind, attributes, None

    def set(self, **attributes: Any) -> None:
        self.attributes.update(attributes)


class Trace:
    def __init__(self) -> None:
        self.spans: list[Recorded] = []

    def span(self, name: str, kind: str, **attributes: Any) -> AbstractContextManager[Span]:
        @contextmanager
        def opened() -> Iterator[Span]:
            self.spans.append(span := Recorded(name, kind, **attributes))
            yield span

        return opened()


def metered(*script: Line, model: str | None = None) -> tuple[MeteredGateway, Trace, ScriptedGateway]:
    gateway, trace = ScriptedGateway(script), Trace()
    return MeteredGateway(gateway, trace, model), trace, gateway


def two() -> ModelGateway:
    small, large = (ScriptedProvider(lambda _: "hi", replace(SCRIPTED, name=name)) for name in ("small", "large"))
    return ModelGateway.of({"small": small, "large": large}, "small", {"rag": "large"})


def test_each_task_has_its_default_and_a_named_model_goes_before_it() -> None:
    gateway = two()
    assert [gateway.describe(task=task).name for task in ("chat", "rag", "agent", "arguments")] == [
        "small",
        "large",
        "small",
        "small",
    ]
    assert gateway.describe("small", "rag").name == "small"


def test_a_default_that_does_not_exist_is_noticed_when_the_gateway_is_made() -> None:
    with pytest.raises(Missing):
        ModelGateway.of({}, "small")
    with pytest.raises(Missing):
        ModelGateway.of({"small": ScriptedProvider([])}, "small", {"rag": "large"})


async def test_an_unknown_model_is_missing_wherever_it_is_named() -> None:
    gateway = two()
    meter = MeteredGateway(gateway, Trace())
    for door in (gateway, meter):
        with pytest.raises(Missing):
            door.describe("none")
        with pytest.raises(Missing):
            door.count_tokens("text", "none")
        with pytest.raises(Missing) as raised:
            await door.complete(replace(ASK, model="none"))
        assert raised.value.field == "model"
    assert meter.calls == ()


@pytest.mark.parametrize(
    ("run", "request_model", "task", "reached"),
    [
        (None, None, "chat", "small"),
        (None, None, "rag", "large"),
        ("large", None, "chat", "large"),
        ("small", None, "rag", "small"),
        ("large", "small", "chat", "small"),
    ],
)
async def test_the_request_the_run_and_the_task_name_the_model_in_this_order(
    run: str | None, request_model: str | None, task: Any, reached: str
) -> None:
    meter = MeteredGateway(two(), Trace(), run)
    assert meter.describe(request_model, task).name == reached
    assert (await meter.complete(replace(ASK, model=request_model, task=task))).model == reached
    assert meter.calls[0].model == reached


async def test_closing_the_gateway_closes_its_providers() -> None:
    gateway = two()
    await gateway.close()
    for name in ("small", "large"):
        with pytest.raises(UpstreamError):
            await gateway.complete(replace(ASK, model=name))


async def test_a_call_is_billed_and_timed_as_a_span() -> None:
    call = ToolProposal("c1", "calculator", {"expression": "3+4"})
    meter, trace, _ = metered(Say(("Hello", " you"), usage=SPENT, tool_calls=(call,)))
    items = [item async for item in meter.stream(ASK)]
    assert items[:2] == [Delta("Hello"), Delta(" you")]
    (billed,) = meter.calls
    assert (billed.model, billed.model_version, billed.provider) == ("scripted", "1", "scripted")
    assert (billed.usage, billed.finish_reason, billed.error_code) == (SPENT, "tool_calls", None)
    assert billed.first_token_ms is not None
    assert billed.first_token_ms <= billed.latency_ms
    (span,) = trace.spans
    assert (span.name, span.kind) == ("scripted", "model")
    assert span.attributes["inputs"]["messages"] == [{"role": "user", "content": "Say hello"}]
    assert span.attributes["outputs"]["text"] == "Hello you"
    assert span.attributes["outputs"]["tool_calls"][0]["name"] == "calculator"
    assert (span.attributes["input_tokens"], span.attributes["output_tokens"]) == (19, 3)
    assert span.attributes["first_token_ms"] == billed.first_token_ms


async def test_the_bill_is_the_sum_of_all_calls() -> None:
    meter, _, _ = metered(Say(("a",), usage=Usage(1, 2)), Say(("b",), usage=Usage(10, 20)))
    await meter.complete(ASK)
    await meter.complete(ASK)
    assert meter.usage == Usage(11, 22)
    assert len(meter.calls) == 2


async def test_a_run_that_fails_after_the_model_spoke_still_pays() -> None:
    meter, trace, _ = metered(Say(("Hello",), error=UpstreamError("broke off")))
    with pytest.raises(UpstreamError):
        await last(meter.stream(ASK))
    (billed,) = meter.calls
    assert billed.error_code == "upstream_error"
    assert billed.usage.estimated
    assert billed.usage.input_tokens > 0
    assert billed.usage.output_tokens > 0
    assert trace.spans[0].attributes["outputs"]["text"] == "Hello"


@pytest.mark.parametrize(
    ("error", "paid"),
    [(UpstreamRejected("no"), False), (UpstreamError("refused"), False), (UpstreamTimeout("late"), True)],
)
async def test_a_call_that_fails_before_it_spoke_pays_for_the_prompt_only_if_it_was_being_read(
    error: UpstreamError, paid: bool
) -> None:
    meter, _, _ = metered(error)
    with pytest.raises(UpstreamError):
        await meter.complete(ASK)
    (billed,) = meter.calls
    assert (billed.usage.input_tokens > 0, billed.usage.output_tokens) == (paid, 0)
    assert billed.first_token_ms is None


async def test_r06_a_failure_is_billed_as_the_server_counted_it() -> None:
    counted = UpstreamError("no answer in it")
    counted.usage = Usage(19, 3)
    meter, _, _ = metered(Say(("Hello",), error=counted), counted)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await meter.complete(ASK)
    assert [(call.usage, call.error_code) for call in meter.calls] == [(Usage(19, 3), "upstream_error")] * 2


async def test_r06_a_failure_that_cost_nothing_after_words_is_counted() -> None:
    counted = UpstreamError("broke off")
    counted.usage = Usage(19, 0)
    meter, _, _ = metered(Say(("Hello",), error=counted))
    with pytest.raises(UpstreamError):
        await meter.complete(ASK)
    assert meter.calls[0].usage.estimated
    assert meter.calls[0].usage.output_tokens > 0


async def stopped_by_cancelling(stream: AsyncIterator[Delta | Completion]) -> None:
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def stopped_by_leaving(stream: Any) -> None:
    await anext(stream)
    await stream.aclose()


@pytest.mark.parametrize("stop", [stopped_by_cancelling, stopped_by_leaving])
async def test_a_stopped_call_is_billed_and_its_upstream_closed(stop: Any) -> None:
    meter, trace, gateway = metered(Say(("Hello", "you"), wait_between=asyncio.Event()))
    await stop(meter.stream(ASK))
    (billed,) = meter.calls
    assert billed.error_code == "cancelled"
    assert billed.usage.output_tokens > 0
    assert gateway.provider.closed_early == 1
    assert "output_tokens" in trace.spans[0].attributes


async def test_a_caller_that_fails_while_listening_does_not_unbill_the_call() -> None:
    meter, _, _ = metered("Hello you")

    async def listen() -> None:
        async for _ in meter.stream(ASK):
            raise RuntimeError("the listener's own fault")

    with pytest.raises(RuntimeError):
        await listen()
    await asyncio.sleep(0.01)
    assert meter.usage.output_tokens > 0
