"""Takes traces out of MLflow, with their spans, opinions and tags, and out of its file's free pages."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from app.telemetry.mlflow_sink import EXPERIMENT

AT_ONCE: Final = 100
BUSY_S: Final = 30.0


def erase_traces(tracking_uri: str, trace_ids: Sequence[str]) -> int:
    """How many of these there were. Blocking; calling it again finds none. Artifacts hold nothing of ours."""
    file = Path(tracking_uri.removeprefix("sqlite:///")) if tracking_uri.startswith("sqlite:///") else None
    if not trace_ids or (file is not None and not file.is_file()):
        return 0
    from mlflow.tracking._tracking_service.utils import _get_store  # seconds and hundreds of MB

    store = _get_store(store_uri=tracking_uri)
    experiment = store.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return 0
    found = 0
    for at in range(0, len(trace_ids), AT_ONCE):
        found += store.delete_traces(experiment.experiment_id, trace_ids=list(trace_ids[at : at + AT_ONCE]))
    if file is not None and found:
        with closing(sqlite3.connect(file, timeout=BUSY_S)) as connection:
            connection.execute("VACUUM")  # MLflow's connections leave what they delete in free pages
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return found
