"""Run as a process that is to be killed: the API over the home that is given, on a port that it prints."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from app import workbench
from app.api.app import create_api
from app.main import socket_config
from app.services.gateway.scripted import ScriptedProvider
from app.settings import Settings, quiet_libraries
from tests.api.served import OWNER_KEY


async def main(home: Path) -> None:
    settings = Settings.offline(home, owner_key=OWNER_KEY, export_traces=False)
    workbench.PAGES = home / "pages"  # type: ignore[misc]  # no handbook is needed here
    listener = socket.create_server(("127.0.0.1", 0))

    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        own = ScriptedProvider(["unused"])
        async with workbench.open_workbench(settings, providers={own.info.name: own}) as bench:
            api.state.bench = bench
            print(listener.getsockname()[1], flush=True)
            yield

    server = uvicorn.Server(socket_config(create_api(settings, lifespan=lifespan), settings))
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    quiet_libraries()
    asyncio.run(main(Path(sys.argv[1])))
