"""Drains a burst of runs into MLflow while killing the exporter, and counts what arrived.

    python benchmarks/trace_outbox.py --runs 2000 --kills 8

Every run has ten spans with prompt-sized texts. The clock starts when the first trace arrives, and stops while an
exporter that was killed starts up again, so that the rate is the exporter's and not that of importing MLflow.
"""

import argparse
import asyncio
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.records import AnswerCard, CardUsage
from app.services.store.store import Store
from app.telemetry.exporter_process import exporter_process
from app.telemetry.spans import RunTrace

STATIONS = ("screen", "retrieve", "assemble", "complete", "validate")


async def fill(store: Store, count: int) -> set[str]:
    """Write ended runs as the runner does; their ids."""
    made = set()
    for number in range(count):
        run_id, now = uuid4().hex, datetime.now(UTC)
        trace = RunTrace(run_id)
        with trace.root("rag", mode="rag"):
            for name in STATIONS:
                with trace.span(name, "station", inputs={"question": "q" * 300}) as span:
                    if name == "retrieve":
                        with trace.span("handbook", "search", outputs={"passages": ["p" * 800] * 6}):
                            pass
                    if name == "complete":
                        tokens = {"input_tokens": 900, "output_tokens": 60}
                        with trace.span("smollm2", "model", inputs={"messages": "m" * 3_500}, **tokens):
                            pass
                    span.set(outputs={"answer": "a" * 300})
            for name in ("first", "second"):
                with trace.span(name, "tool", inputs={"x": 1}):
                    pass
        await store.runs.start(run_id, "acme", "ada", None, "rag", f"Question {number}", "bench", "key", now)
        card = AnswerCard(
            request_id=run_id,
            conversation_id="",
            mode="rag",
            status="completed",
            answer=f"Answer {number}",
            model="smollm2",
            stations=trace.stations(),
            usage=CardUsage(input_tokens=900, output_tokens=60, calls=1),
            created_at=now,
        )
        await store.runs.finish(run_id, "acme", card, (), trace.records, ())
        made.add(run_id)
    return made


async def drain(store: Store, mlruns: Path, store_url: str, kills: int) -> tuple[float, int]:
    """Seconds of draining and kills done."""
    tracking_uri = f"sqlite:///{mlruns / 'mlflow.db'}"
    draining_s, killed, last = 0.0, 0, await store.runs.backlog()
    total = last
    marks = [total * (kills - number) // (kills + 1) for number in range(kills)]
    async with exporter_process(store_url, tracking_uri, mlruns / "artifacts") as exporter:
        moved_at: float | None = None
        while last:
            await asyncio.sleep(0.02)
            left = await store.runs.backlog()
            if left != last:
                now = time.perf_counter()
                draining_s += now - moved_at if moved_at else 0.0
                moved_at, last = now, left
            if marks and left <= marks[0] and exporter.pid is not None:
                await asyncio.sleep(random.Random(left).random() * 0.3)
                os.kill(exporter.pid, signal.SIGKILL)
                killed, moved_at = killed + 1, None
                marks.pop(0)
    return draining_s, killed


def arrived(database: Path) -> tuple[list[str], int, int]:
    """Trace ids, spans and spans that are there twice."""
    with closing(sqlite3.connect(database)) as connection:
        traces = [row[0] for row in connection.execute("select request_id from trace_info")]
        (spans,) = connection.execute("select count(*) from spans").fetchone()
        (distinct,) = connection.execute("select count(distinct span_id) from spans").fetchone()
    return traces, spans, spans - distinct


async def main(runs: int, kills: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store_url = f"sqlite+aiosqlite:///{home / 'pilothouse.db'}"
        store = await Store.open(store_url)
        started = time.perf_counter()
        made = await fill(store, runs)
        print(f"{runs} runs written in {time.perf_counter() - started:.1f} s; backlog {await store.runs.backlog()}")
        draining_s, killed = await drain(store, home, store_url, kills)
        await store.close()
        traces, spans, doubled = arrived(home / "mlflow.db")
        wanted = {f"tr-{run_id}" for run_id in made}
        lost, strange = wanted - set(traces), set(traces) - wanted
        print(f"{len(traces)} traces, {spans} spans after {killed} kills in {draining_s:.1f} s of draining")
        print(f"{runs / draining_s:.0f} traces/s; lost {len(lost)}, strange {len(strange)}, spans twice {doubled}")
        sys.exit(bool(lost or strange or doubled or len(traces) != len(set(traces)) or spans != 10 * runs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--kills", type=int, default=8)
    given = parser.parse_args()
    asyncio.run(main(given.runs, given.kills))
