"""The ASGI application: API and console over one workbench.

The socket answers `/healthz` at once. The workbench opens behind it, then the console, whose library alone takes
seconds to import; both are closed when the application's lifespan ends.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module

import uvicorn
from fastapi import FastAPI

from app.api.app import create_api
from app.api.public import small_body_bytes
from app.joined import JoinedProtocol
from app.patient import PatientSocket
from app.settings import Settings, quiet_libraries
from app.telemetry.logs import configure_logging

log = logging.getLogger("pilothouse.main")

# After start-up nearly everything lives for ever; without this a full collection stops the loop for 100 ms and more.
GC_THRESHOLD = (50_000, 20, 50)
SHUTDOWN_S = 10


def create_app(
    settings: Settings, *, announce: Callable[[str], None] | None = None, failed: list[BaseException] | None = None
) -> FastAPI:
    """The whole application. `announce` gets the console link with its one-time token once all is ready.

    A failure to open ends the process by SIGTERM and is left in `failed`.
    """

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            opening = asyncio.create_task(_open(api, settings, stack, announce), name="open")
            try:
                yield
            finally:
                opening.cancel()
                await asyncio.wait({opening})
                if failed is not None and not opening.cancelled() and (error := opening.exception()):
                    failed.append(error)

    return create_api(settings, lifespan=lifespan)


async def _open(
    api: FastAPI, settings: Settings, stack: AsyncExitStack, announce: Callable[[str], None] | None
) -> None:
    """Open bench and console. Without a bench there is nothing to serve: the log says why and the process ends."""
    try:
        # LangGraph and the models' runtimes take seconds to import: off the loop, after the socket is open.
        workbench = await asyncio.to_thread(import_module, "app.workbench")
        bench = await stack.enter_async_context(workbench.open_workbench(settings, serving=True))
        # The console is there some seconds after the API; until then its address shows that it is on its way.
        api.state.bench, api.state.console_opening = bench, True
        console = await asyncio.to_thread(import_module, "app.console.app")
        await stack.enter_async_context(console.mount_console(api, bench))
        api.state.console_opening = False
        await bench.until_ready()
    except Exception:
        log.exception("start-up failed")
        os.kill(os.getpid(), signal.SIGTERM)
        raise
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLD)
    bench.watch.begin()
    if announce is not None:
        announce(bench.login_link())


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or Ctrl-C; gives the exit code."""
    quiet_libraries()
    configure_logging("INFO", sys.stderr)
    # uvloop forks to start a program, and LanceDB warns in the child, which shall touch nothing before it is replaced.
    warnings.filterwarnings("ignore", message="lancedb fork support", category=RuntimeWarning)
    failed: list[BaseException] = []
    server = uvicorn.Server(socket_config(create_app(settings, announce=_announce, failed=failed), settings))
    server.run()
    return 0 if server.started and not failed else 1


def socket_config(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """How the product listens."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=JoinedProtocol,
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        ws=PatientSocket,
        ws_max_size=small_body_bytes(settings),
    )


def _announce(link: str) -> None:
    print(f"\n  Pilothouse is ready. Open the console (this link works once):\n\n    {link}\n", flush=True)
