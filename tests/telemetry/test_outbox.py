import asyncio
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.records import AnswerCard, SpanRecord
from app.telemetry.mlflow_trace import EndedRun, MlflowSpan, Opinion, trace_id, trace_spans
from app.telemetry.outbox import TraceExporter
from graphs.errors import Missing

NOW = datetime(2025, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


@dataclass(frozen=True)
class Run:
    run_id: str
    status: str = "completed"
    conversation_id: str | None = "conversation-1"
    tenant_id: str = "acme"
    user_id: str = "ada"
    mode: str = "rag"
    feature: str = "api"
    message: str = "How do I rotate a key?"
    answer: str = "Every quarter."
    model: str = "smollm2"
    provider: str = "llamacpp"
    prompt_version: str = ""
    graph_fingerprint: str = ""
    index_version: str = ""
    validation: str = ""
    cost_usd_micros: int = 1_500
    error_code: str | None = None
    error_message: str | None = None
    card: AnswerCard | None = None
    created_at: datetime = NOW
    ended_at: datetime | None = NOW + timedelta(seconds=2)


def span(run: Run, span_id: str, parent: str | None, name: str, kind: str, **attributes: Any) -> SpanRecord:
    return SpanRecord(span_id, run.run_id, parent, name, kind, NOW, NOW + timedelta(seconds=1), "ok", attributes)


@dataclass(frozen=True)
class Thought:
    user_id: str
    rating: str
    comment: str = ""
    created_at: datetime = NOW


class MemoryOutbox:
    """`fails` is asked before every call; `deleted` runs have no spans any more."""

    def __init__(self, runs: Sequence[Run], deleted: Sequence[str] = ()) -> None:
        self.waiting = {run.run_id: run for run in runs}
        self.deleted = deleted
        self.opinions: dict[str, list[Thought]] = {}
        self.emptied = asyncio.Event()
        self.fails = lambda: False

    def _perhaps_fail(self) -> None:
        if self.fails():
            raise OSError("the store is away")

    async def export_batch(self, limit: int) -> Sequence[EndedRun]:
        self._perhaps_fail()
        if not self.waiting:
            self.emptied.set()
        return list(self.waiting.values())[:limit]

    async def spans(self, run_id: str, tenant_id: str) -> Sequence[SpanRecord]:
        self._perhaps_fail()
        if run_id in self.deleted:
            self.waiting.pop(run_id)
            raise Missing("no such run")
        run = self.waiting[run_id]
        return [span(run, f"{int(run_id, 16):016x}", None, "rag", "run")]

    async def mark_exported(
        self, run_ids: Sequence[str], trace_ids: Sequence[str], heard: Mapping[str, datetime]
    ) -> int:
        self._perhaps_fail()
        assert [trace_id(run_id) for run_id in run_ids] == list(trace_ids)
        assert heard == {run_id: NOW for run_id in run_ids if self.opinions.get(run_id)}
        return len([self.waiting.pop(run_id) for run_id in run_ids])

    async def for_run(self, run_id: str, tenant_id: str) -> Sequence[Opinion]:
        self._perhaps_fail()
        return self.opinions.get(run_id, [])

    async def backlog(self) -> int:
        return len(self.waiting)


@dataclass
class MemorySink:
    """Upserts as MLflow does; refuses the spans of `poisoned` runs, and everything while `away`."""

    poisoned: Sequence[str] = ()
    away: bool = False
    fails: Any = lambda: False
    spans: dict[tuple[str, str], MlflowSpan] = field(default_factory=dict)
    assessed: dict[tuple[str, str], Opinion] = field(default_factory=dict)
    refuses_opinions: bool = False

    def write(self, traces: Sequence[Sequence[MlflowSpan]]) -> None:
        if self.away or self.fails():
            raise OSError("MLflow is away")
        refused = {trace_id(run_id) for run_id in self.poisoned}
        for trace in traces:
            if trace[0]["trace_id"] in refused and not incomplete(trace[0]):
                raise ValueError("cannot store this")
        self.spans |= {(item["trace_id"], item["span_id"]): item for trace in traces for item in trace}
        if self.fails():
            raise OSError("the connection broke after the commit")

    def assess(self, trace: str, opinions: Sequence[Opinion]) -> None:
        if self.away or self.fails():
            raise OSError("MLflow is away")
        if self.refuses_opinions:
            raise ValueError("cannot store this")
        assert trace in self.traces
        self.assessed |= {(trace, opinion.user_id): opinion for opinion in opinions}

    @property
    def traces(self) -> list[str]:
        return sorted({trace for trace, _ in self.spans})


def incomplete(root: MlflowSpan) -> bool:
    return "mlflow.traceTag.incomplete" in root["attributes"]


def runs(count: int) -> list[Run]:
    return [Run(f"{number:032x}") for number in range(1, count + 1)]


async def drained(outbox: MemoryOutbox, sink: MemorySink) -> None:
    stop = asyncio.Event()
    task = asyncio.create_task(TraceExporter(outbox, outbox, sink, batch_runs=5, idle_s=0.0001).run(stop))
    await outbox.emptied.wait()
    stop.set()
    await task


async def test_every_run_gets_its_trace() -> None:
    made, sink = runs(23), MemorySink()
    await drained(MemoryOutbox(made), sink)
    assert sink.traces == sorted(trace_id(run.run_id) for run in made)


@pytest.mark.parametrize("seed", range(5))
async def test_failures_at_any_step_lose_no_trace_and_double_none(seed: int) -> None:
    made, chance = runs(40), random.Random(seed)
    outbox, sink = MemoryOutbox(made), MemorySink()
    outbox.opinions = {run.run_id: [Thought("ada", "up")] for run in made[::4]}
    # Long pauses follow failures in a row; the exporter's loop is driven here without them.
    outbox.fails = lambda: chance.random() < 0.05
    sink.fails = lambda: chance.random() < 0.2
    exporter = TraceExporter(outbox, outbox, sink, batch_runs=5)
    while outbox.waiting:
        try:
            await exporter.export_once()
        except OSError:
            continue
    assert sink.traces == sorted(trace_id(run.run_id) for run in made)
    assert len(sink.spans) == len(made)
    assert len(sink.assessed) == len(made) / 4


async def test_a_run_that_mlflow_refuses_holds_up_no_other_and_keeps_a_bare_trace() -> None:
    made = runs(12)
    sink = MemorySink(poisoned=[made[3].run_id])
    await drained(MemoryOutbox(made), sink)
    assert len(sink.traces) == 12
    assert [trace for (trace, _), item in sink.spans.items() if incomplete(item)] == [trace_id(made[3].run_id)]


async def test_an_opinion_that_mlflow_refuses_holds_up_no_run() -> None:
    made, sink = runs(12), MemorySink(refuses_opinions=True)
    outbox = MemoryOutbox(made)
    outbox.opinions[made[3].run_id] = [Thought("ada", "down")]
    await drained(outbox, sink)
    assert (len(sink.traces), sink.assessed) == (12, {})


async def test_while_mlflow_is_away_runs_stay_in_the_outbox() -> None:
    outbox, sink = MemoryOutbox(runs(3)), MemorySink(away=True)
    exporter = TraceExporter(outbox, outbox, sink)
    with pytest.raises(OSError, match="MLflow is away"):
        await exporter.export_once()
    assert await outbox.backlog() == 3
    sink.away = False
    assert await exporter.export_once() == 3
    assert await outbox.backlog() == 0


async def test_a_run_deleted_meanwhile_is_left_out() -> None:
    made, sink = runs(3), MemorySink()
    await drained(MemoryOutbox(made, deleted=[made[1].run_id]), sink)
    assert sink.traces == [trace_id(made[0].run_id), trace_id(made[2].run_id)]


def test_a_trace_carries_what_mlflow_shows_of_a_run() -> None:
    run = Run("0" * 31 + "1", status="failed", error_code="upstream_timeout", error_message="no answer in 30 s")
    records = [
        span(run, "a" * 16, None, "rag", "run", mode="rag"),
        span(run, "b" * 16, "a" * 16, "complete", "station", inputs={"question": "q"}),
        span(run, "c" * 16, "b" * 16, "smollm2", "model", model="smollm2", input_tokens=9, output_tokens=4),
    ]
    root, station, model = trace_spans(run, records)
    shown = {name: json.loads(value) for name, value in root["attributes"].items()}
    assert root["trace_id"] == "tr-" + run.run_id
    assert root["status"] == {"code": "STATUS_CODE_ERROR", "message": "no answer in 30 s"}
    assert root["start_time_unix_nano"] == int(NOW.timestamp() * 1_000) * 1_000_000
    assert shown["mlflow.spanInputs"]["messages"] == [{"role": "user", "content": run.message}]
    assert shown["mlflow.spanOutputs"]["messages"] == [{"role": "assistant", "content": run.answer}]
    assert (shown["user.id"], shown["session.id"]) == ("ada", "conversation-1")
    assert shown["mlflow.traceTag.tenant"] == "acme"
    assert shown["mlflow.traceTag.errorCode"] == "upstream_timeout"
    assert shown["mlflow.llm.cost"] == {"total_cost": 0.0015}
    assert json.loads(station["attributes"]["mlflow.spanInputs"]) == {"question": "q"}
    assert json.loads(model["attributes"]["mlflow.chat.tokenUsage"]) == {
        "input_tokens": 9,
        "output_tokens": 4,
        "total_tokens": 13,
    }
    assert [item["parent_span_id"] for item in (root, station, model)] == [None, "a" * 16, "b" * 16]


def test_a_run_in_parts_or_without_spans_still_has_one_root() -> None:
    run = Run("0" * 31 + "2")
    parts = [span(run, "a" * 16, None, "agent", "run"), span(run, "b" * 16, None, "agent", "run")]
    for records in (parts, []):
        spans = trace_spans(run, records)
        roots = [item for item in spans if item["parent_span_id"] is None]
        assert len(roots) == 1
        assert len(spans) == len(records) + 1
        assert trace_spans(run, records) == spans
        assert {item["parent_span_id"] for item in spans} <= {None, roots[0]["span_id"]}


def test_a_span_whose_parent_was_lost_hangs_on_the_root() -> None:
    run = Run("0" * 31 + "3")
    records = [span(run, "a" * 16, None, "rag", "run"), span(run, "b" * 16, "f" * 16, "late", "search")]
    assert [item["parent_span_id"] for item in trace_spans(run, records)] == [None, "a" * 16]
