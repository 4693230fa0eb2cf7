"""The process behind the answers that turns ended runs into MLflow traces: `python -m app.exporter`.

It reads its orders as one line of JSON on stdin and stops when stdin closes. Started by `exporter_process`.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson

from app.sealing import vault_of
from app.services.store.store import Store
from app.settings import quiet_libraries
from app.telemetry.logs import configure_logging
from app.telemetry.mlflow_sink import MlflowSink
from app.telemetry.outbox import TraceExporter


async def export(store_url: str, tracking_uri: str, artifacts: str, vault: Mapping[str, str] | None) -> None:
    """Export until stdin closes or a SIGTERM comes."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await loop.connect_read_pipe(lambda: _UntilClosed(stop), sys.stdin.buffer)
    store = await Store.open(store_url, vault=None if vault is None else vault_of(vault))
    try:
        await TraceExporter(store.runs, store.feedback, MlflowSink(tracking_uri, Path(artifacts))).run(stop)
    finally:
        await store.close()


class _UntilClosed(asyncio.Protocol):
    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop.set()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent says when to stop
    os.nice(10)  # answers come first
    quiet_libraries()
    os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"  # its own handlers would write plain text between our lines
    configure_logging()
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    orders = orjson.loads(sys.stdin.buffer.readline())
    asyncio.run(export(**orders))


if __name__ == "__main__":
    main()
