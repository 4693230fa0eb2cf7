"""Keeps the exporter running as a child process, so that MLflow is never imported beside the API.

The child gets its orders as one line on stdin and stops when stdin closes; the system closes it with this process,
however that ends. A child that dies is started again, after a pause that grows while it keeps dying.
"""

import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

COMMAND = (sys.executable, "-m", "app.exporter")
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
HEALTHY_S = 60.0  # a child that lived this long starts again at the first pause
STOP_S = 10.0  # a batch in flight takes a fraction of this

log = logging.getLogger("pilothouse.traces")


@asynccontextmanager
async def exporter_process(
    store_url: str,
    tracking_uri: str,
    artifacts: Path,
    *,
    vault: Mapping[str, str] | None = None,
    command: Sequence[str] = COMMAND,
) -> AsyncIterator["ExporterProcess"]:
    """A running exporter for the length of the block. Inside, what it does is seen in the outbox's backlog alone.

    `vault` says where it finds the keys that the store's contents are sealed with.
    """
    orders = {"store_url": store_url, "tracking_uri": tracking_uri, "artifacts": str(artifacts), "vault": vault}
    exporter = ExporterProcess(orders, command)
    keeping = asyncio.create_task(exporter.keep_running(), name="trace exporter")
    try:
        yield exporter
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


class ExporterProcess:
    """The child and its restarts."""

    def __init__(self, orders: Mapping[str, Any], command: Sequence[str]) -> None:
        self._orders = orjson.dumps(orders) + b"\n"  # not argv: a database URL can hold a password, and keys are keys
        self._command = command
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The child's, None between two of them."""
        return self._child.pid if self._child and self._child.returncode is None else None

    async def keep_running(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            code = await self._run_once()
            if time.monotonic() - started > HEALTHY_S:
                pause_s = FIRST_PAUSE_S
            log.warning("the trace exporter ended", extra={"exitCode": code, "restartInS": pause_s})
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _run_once(self) -> int:
        child = await asyncio.create_subprocess_exec(
            *self._command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL
        )
        self._child = child
        assert child.stdin is not None
        try:
            with suppress(BrokenPipeError, ConnectionResetError):
                child.stdin.write(self._orders)
                await child.stdin.drain()
            return await child.wait()
        finally:
            child.stdin.close()
            await _ended(child)


async def _ended(child: asyncio.subprocess.Process) -> None:
    for give_up in (child.terminate, child.kill):
        try:
            async with asyncio.timeout(STOP_S):
                await child.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                give_up()
    await child.wait()
