"""The traces of runs that went to MLflow, for who has to take them back."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Final

import orjson

from app.telemetry.mlflow_trace import trace_id
from graphs.errors import UpstreamError

COMMAND: Final = (sys.executable, "-m", "app.unexport")


class TracesNotErased(UpstreamError):
    """MLflow did not let go of traces."""

    code = "traces_not_erased"


class Traces:
    """Of one installation."""

    def __init__(self, tracking_uri: str, command: Sequence[str] = COMMAND) -> None:
        self._tracking_uri, self._command = tracking_uri, command

    async def remove(self, run_ids: Sequence[str]) -> int:
        """How many were there, in a process of its own, where MLflow may be imported. Raises TracesNotErased."""
        if not run_ids:
            return 0
        orders = {"tracking_uri": self._tracking_uri, "trace_ids": [trace_id(run_id) for run_id in run_ids]}
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*self._command, stdin=pipe, stdout=pipe)
        told, _ = await child.communicate(orjson.dumps(orders) + b"\n")
        if child.returncode:
            raise TracesNotErased("traces that were to be erased are still in MLflow; the log has the cause")
        return int(told)
