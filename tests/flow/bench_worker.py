"""Run as one worker of several: settings from the environment, no embedded model, a handbook of one page.

Performs jobs until it is killed, as `pilothouse worker` does, and says when it is up.
"""

import asyncio

from app import workbench
from app.services.gateway.scripted import ScriptedProvider
from app.settings import Settings, quiet_libraries


async def main() -> None:
    settings = Settings()
    workbench.PAGES = settings.home / "pages"  # type: ignore[misc]
    own = ScriptedProvider(["unused"])
    async with workbench.open_workbench(settings, providers={own.info.name: own}, serving=True) as bench:
        await bench.until_ready()
        print("up", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    quiet_libraries()
    asyncio.run(main())
