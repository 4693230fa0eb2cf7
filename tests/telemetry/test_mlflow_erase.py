"""Traces taken out of a real MLflow again, in the process that does it."""

import subprocess
import sys
from pathlib import Path

import orjson

from app.telemetry.mlflow_trace import trace_id

CANARY = "canary-5105-1051"
WRITE = """
import sys
from pathlib import Path
from app.telemetry.mlflow_sink import MlflowSink
from app.telemetry.mlflow_trace import trace_id, trace_spans
from tests.telemetry.test_outbox import Run, Thought, span

sink = MlflowSink(f"sqlite:///{sys.argv[1]}", Path(sys.argv[2]))
for name, said in (("a", sys.argv[3]), ("b", "something else")):
    run = Run(name * 32, message=said, answer=said)
    sink.write([trace_spans(run, [span(run, name * 16, None, "rag", "run", said=said)])])
    sink.assess(trace_id(run.run_id), [Thought("ada", "down", said)])
"""


def unexport(database: Path, *run_ids: str) -> int:
    orders = {"tracking_uri": f"sqlite:///{database}", "trace_ids": [trace_id(run_id) for run_id in run_ids]}
    told = subprocess.run(
        [sys.executable, "-m", "app.unexport"], input=orjson.dumps(orders) + b"\n", stdout=subprocess.PIPE, check=True
    )
    return int(told.stdout)


def test_p05_an_erased_trace_is_in_no_page_of_the_file_and_others_stay(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    assert unexport(database, "a" * 32) == 0, "where nothing was exported there is nothing to open"
    subprocess.run([sys.executable, "-c", WRITE, database, tmp_path / "artifacts", CANARY], check=True)

    def held() -> bytes:
        return b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

    assert CANARY.encode() in held()
    assert unexport(database, "a" * 32, "c" * 32) == 1
    assert CANARY.encode() not in held()
    assert b"something else" in held()
