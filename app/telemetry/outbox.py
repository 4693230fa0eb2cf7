"""Carries ended runs, and what their users thought of them, from the store's outbox to MLflow, behind the answers.

A run leaves the outbox after its trace is written, so a crash in between writes the same trace once more under the
same ids: nothing is lost and nothing is there twice. An opinion puts its run back into the outbox.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Protocol

from app.records import SpanRecord
from app.telemetry.mlflow_trace import EndedRun, MlflowSpan, Opinion, bare_trace, trace_id, trace_spans
from graphs.errors import Missing

BATCH_RUNS = 25  # 0.2 s a transaction; larger ones are not faster (benchmarks/trace_outbox.py)
IDLE_S = 1.0
LONGEST_PAUSE_S = 60.0
MAX_REFUSALS = 5  # of one run's opinions, before the run goes on without them

log = logging.getLogger("pilothouse.traces")


class Outbox(Protocol):
    """Ended runs without a trace, oldest first."""

    async def export_batch(self, limit: int) -> Sequence[EndedRun]: ...

    async def spans(self, run_id: str, tenant_id: str) -> Sequence[SpanRecord]:
        """Raises Missing when the run has been deleted."""
        ...

    async def mark_exported(
        self, run_ids: Sequence[str], trace_ids: Sequence[str], heard: Mapping[str, datetime]
    ) -> int:
        """`heard`: by run, when the newest opinion was given that went with it. With a newer one a run stays in."""
        ...

    async def backlog(self) -> int: ...


class Opinions(Protocol):
    """What users thought of runs."""

    async def for_run(self, run_id: str, tenant_id: str) -> Sequence[Opinion]: ...


class Sink(Protocol):
    """Blocking. Writing the same again changes nothing."""

    def write(self, traces: Sequence[Sequence[MlflowSpan]]) -> None:
        """All or none."""
        ...

    def assess(self, trace: str, opinions: Sequence[Opinion]) -> None:
        """Put the opinions on a trace that was written; a user's later one takes the earlier's place."""
        ...


class TraceExporter:
    """Empties the outbox, batch by batch. Any number may run at once; the work is then done twice, not shared."""

    def __init__(
        self,
        outbox: Outbox,
        opinions: Opinions,
        sink: Sink,
        *,
        batch_runs: int = BATCH_RUNS,
        idle_s: float = IDLE_S,
    ) -> None:
        self._outbox, self._opinions, self._sink = outbox, opinions, sink
        self._batch_runs, self._idle_s = batch_runs, idle_s
        self._refusals: Counter[str] = Counter()

    async def run(self, stop: asyncio.Event) -> None:
        """Export until `stop` is set, at most one batch after it. Waits longer after each failure in a row."""
        pause_s = self._idle_s
        exported = 0
        while not stop.is_set():
            try:
                count = await self.export_once()
            except Exception:  # the loop of a worker: what failed is still in the outbox and is tried again
                log.exception("traces could not be exported", extra={"retryInS": pause_s})
                await _wait(stop, pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
                continue
            pause_s = self._idle_s
            exported += count
            if count < self._batch_runs:
                if exported:
                    log.info("traces exported", extra={"runs": exported})
                exported = 0
                await _wait(stop, self._idle_s)

    async def export_once(self) -> int:
        """Export one batch; how many runs it held. 0 means that the outbox is empty."""
        batch: list[tuple[EndedRun, list[MlflowSpan]]] = []
        runs = await self._outbox.export_batch(self._batch_runs)
        for run in runs:
            with suppress(Missing):  # deleted since the batch was read
                batch.append((run, trace_spans(run, await self._outbox.spans(run.run_id, run.tenant_id))))
        if batch:
            await self._write(batch)
            heard = await self._assess(batch)
            ids = [run.run_id for run, _ in batch]
            await self._outbox.mark_exported(ids, [trace_id(run_id) for run_id in ids], heard)
        return len(runs)

    async def _assess(self, batch: Sequence[tuple[EndedRun, list[MlflowSpan]]]) -> dict[str, datetime]:
        """Put their users' opinions on the traces of a batch; the time of the newest by run."""
        heard = {}
        for run, _ in batch:
            opinions = await self._opinions.for_run(run.run_id, run.tenant_id)
            if opinions:
                heard[run.run_id] = max(opinion.created_at for opinion in opinions)
                await self._assess_one(run, opinions)
        return heard

    async def _assess_one(self, run: EndedRun, opinions: Sequence[Opinion]) -> None:
        try:
            await asyncio.to_thread(self._sink.assess, trace_id(run.run_id), opinions)
        except Exception:
            # The trace was written a moment ago, so MLflow is not away; but one failure may still be chance.
            self._refusals[run.run_id] += 1
            if self._refusals[run.run_id] < MAX_REFUSALS:
                raise
            log.exception("an opinion was refused", extra={"requestId": run.run_id})
        self._refusals.pop(run.run_id, None)

    async def _write(self, batch: Sequence[tuple[EndedRun, list[MlflowSpan]]]) -> None:
        try:
            await asyncio.to_thread(self._sink.write, [spans for _, spans in batch])
        except Exception:
            # One run that MLflow refuses must not hold up all others for good. If MLflow itself is away the bare
            # trace fails too, and that error goes up.
            log.warning("a batch of traces was refused; writing them one by one", exc_info=True)
            for run, spans in batch:
                await self._write_one(run, spans)

    async def _write_one(self, run: EndedRun, spans: list[MlflowSpan]) -> None:
        try:
            await asyncio.to_thread(self._sink.write, [spans])
        except Exception:
            await asyncio.to_thread(self._sink.write, [bare_trace(spans)])
            log.exception("a trace was refused and is kept without its spans", extra={"requestId": run.run_id})


async def _wait(stop: asyncio.Event, timeout_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await stop.wait()
