"""Run as one API process of several: settings from the environment, no embedded model, a handbook of one page.

Serves until it is told to stop, as `pilothouse serve` does, on a port that it prints.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

from app import workbench
from app.api.app import create_api
from app.main import socket_config
from app.services.gateway.scripted import ScriptedProvider
from app.settings import Settings, quiet_libraries


async def main() -> None:
    settings = Settings()
    workbench.PAGES = settings.home / "pages"  # type: ignore[misc]
    listener = socket.create_server(("127.0.0.1", 0))

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        own = ScriptedProvider(["unused"])
        async with workbench.open_workbench(settings, providers={own.info.name: own}, serving=True) as bench:
            api.state.bench = bench
            await bench.until_ready()
            print(listener.getsockname()[1], flush=True)
            yield

    config = socket_config(create_api(settings, lifespan=lifespan), settings)
    config.timeout_graceful_shutdown = 1
    await uvicorn.Server(config).serve(sockets=[listener])


if __name__ == "__main__":
    quiet_libraries()
    asyncio.run(main())
