import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.errors import GraphInterrupt

from app.records import SpanRecord
from app.telemetry.safe import MAX_ITEMS, MAX_TEXT_CHARS, safe
from app.telemetry.spans import RunTrace
from graphs.errors import Missing
from graphs.types import Usage

START = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)


class Ticks:
    """A monotonic clock that moves by one millisecond at every reading."""

    def __init__(self) -> None:
        self.now_ns = 5_000_000_000

    def __call__(self) -> int:
        self.now_ns += 1_000_000
        return self.now_ns


@pytest.fixture
def trace() -> RunTrace:
    return RunTrace("run-1", clock=lambda: START, monotonic_ns=Ticks())


def named(trace: RunTrace) -> dict[str, SpanRecord]:
    return {record.name: record for record in trace.records}


def test_a_span_inside_a_span_is_its_child(trace: RunTrace) -> None:
    with trace.root("rag"), trace.span("retrieve", "station"), trace.span("search", "search"):
        pass
    spans = named(trace)
    assert spans["rag"].parent_id is None
    assert spans["retrieve"].parent_id == spans["rag"].span_id
    assert spans["search"].parent_id == spans["retrieve"].span_id


async def test_tasks_started_inside_a_span_are_its_children_and_not_each_others(trace: RunTrace) -> None:
    async def work(name: str) -> None:
        with trace.span(name, "tool"):
            await asyncio.sleep(0)

    with trace.root("agent"), trace.span("act", "station"):
        await asyncio.gather(work("one"), work("two"))
    spans = named(trace)
    assert {spans["one"].parent_id, spans["two"].parent_id} == {spans["act"].span_id}


async def test_a_span_from_outside_the_runs_tasks_hangs_on_the_root(trace: RunTrace) -> None:
    begin = asyncio.Event()

    async def stranger() -> None:
        await begin.wait()
        with trace.span("late", "search"):
            pass

    task = asyncio.create_task(stranger())
    with trace.root("rag"):
        begin.set()
        await task
    assert named(trace)["late"].parent_id == named(trace)["rag"].span_id


def test_spans_of_two_runs_never_mix() -> None:
    outer, inner = RunTrace("outer"), RunTrace("inner")
    with outer.root("a"), inner.root("b"), outer.span("c", "station"):
        pass
    assert named(inner)["b"].parent_id is None
    assert named(outer)["c"].parent_id == named(outer)["a"].span_id
    assert {record.run_id for record in inner.records} == {"inner"}


def test_times_lie_on_one_aware_start_and_run_with_the_monotonic_clock(trace: RunTrace) -> None:
    with trace.root("rag"):
        pass
    (root,) = trace.records
    assert root.started_at == START + timedelta(milliseconds=1)
    assert root.ended_at - root.started_at == timedelta(milliseconds=1)


def test_stations_are_listed_by_start_and_nothing_else_is(trace: RunTrace) -> None:
    with trace.root("rag"):
        for name in ("screen", "retrieve", "retrieve"):
            with trace.span(name, "station"), trace.span("inside", "model"):
                pass
    stations = trace.stations()
    assert [station.name for station in stations] == ["screen", "retrieve", "retrieve"]
    assert [station.latency_ms for station in stations] == [3.0, 3.0, 3.0]
    assert stations[0].started_ms < stations[1].started_ms < stations[2].started_ms


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Missing("no such collection"), "error"),
        (KeyError("x"), "error"),
        (GraphInterrupt(()), "interrupted"),
        (asyncio.CancelledError(), "interrupted"),
        (GeneratorExit(), "interrupted"),
    ],
)
def test_how_a_span_ended_is_its_status(trace: RunTrace, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)), trace.root("rag"):
        raise error
    assert trace.records[0].status == status


def test_a_failed_span_names_the_error(trace: RunTrace) -> None:
    with pytest.raises(Missing), trace.root("rag"):
        raise Missing("no collection named 'x'")
    noted = trace.records[0].attributes["error"]
    assert noted == {"type": "Missing", "code": "not_found", "message": "no collection named 'x'"}


async def test_a_stream_closed_by_another_task_ends_its_span_quietly(trace: RunTrace) -> None:
    async def stream() -> AsyncIterator[int]:
        with trace.span("model", "model"):
            yield 1
            yield 2

    with trace.root("chat"):
        items = stream()
        await anext(items)
        await asyncio.create_task(items.aclose())  # type: ignore[attr-defined]
        with trace.span("after", "station"):
            pass
    spans = named(trace)
    assert spans["model"].status == "interrupted"
    assert spans["after"].parent_id == spans["chat"].span_id


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError("not for you")


def test_an_attribute_that_cannot_be_read_fails_nothing(trace: RunTrace) -> None:
    with trace.root("rag", bad={Hostile(): 1}, good=1) as span:
        span.set(other=Hostile())
    attributes = trace.records[0].attributes
    assert attributes == {"bad": "<unreadable: RuntimeError>", "good": 1, "other": "<Hostile>"}


@dataclass
class Knot:
    inside: Any = None


def test_a_value_that_holds_itself_ends_somewhere() -> None:
    knot = Knot()
    knot.inside = knot
    assert "<Knot>" in json.dumps(safe(knot))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (
            Usage(1, 2, cached_input_tokens=1),
            {
                "input_tokens": 1,
                "output_tokens": 2,
                "estimated": False,
                "cached_input_tokens": 1,
                "cache_write_tokens": 0,
            },
        ),
        ((1, "a", None, True), [1, "a", None, True]),
        ({1: {"x": {2}}}, {"1": {"x": [2]}}),
        (b"\x00\x01", "<2 bytes>"),
        (math.nan, "nan"),
        (2**70, hex(2**70)),
        ("lone \ud800", "lone ?"),
        ("Authorization: Bearer abcdefgh12345678", "Authorization: Bearer [redacted]"),
        (START, "2025-03-01T12:00:00+00:00"),
    ],
)
def test_every_value_becomes_json(value: Any, kept: Any) -> None:
    assert safe(value) == kept
    json.dumps(safe(value), allow_nan=False)


def test_long_texts_and_lists_are_cut_with_a_marker() -> None:
    text = safe("x" * (MAX_TEXT_CHARS + 5))
    assert text.endswith("… [5 more characters]")
    assert safe(range(3)) == "<range>"
    assert safe(list(range(MAX_ITEMS + 3)))[-1] == "… 3 more"
    assert safe({n: n for n in range(MAX_ITEMS + 3)})["…"] == "3 more"
