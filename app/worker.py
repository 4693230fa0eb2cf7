"""The process of `pilothouse worker`: performs jobs and serves nobody. Any number of them may run."""

import asyncio
import logging
import signal
import sys

from app.settings import Settings
from app.telemetry.logs import configure_logging

log = logging.getLogger("pilothouse.worker")


def work(settings: Settings) -> None:
    """Until SIGTERM or Ctrl-C; what is in hand then goes to another worker, or waits for one."""
    configure_logging("INFO", sys.stderr)
    # The server's process forwards traces; a worker leaves that to it.
    asyncio.run(_work(settings.model_copy(update={"jobs_in_process": True, "export_traces": False})))


async def _work(settings: Settings) -> None:
    # LangGraph and the models' runtimes take seconds to import, which `--help` should not wait for.
    from app.workbench import open_workbench

    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with open_workbench(settings, serving=True):
        log.info("this worker is up")
        await stopping.wait()
