"""A Python process of its own for what may break it: isolated, without an environment, killed with all it started."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parents[1]


@asynccontextmanager
async def apart(
    module: str,
    *arguments: str,
    flags: Sequence[str] = (),
    stderr: int = asyncio.subprocess.DEVNULL,
    cwd: str | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `main` of one of our modules; what is left of it at the end of the block is killed. `flags` are Python's."""
    # Isolated mode reads neither PYTHONPATH nor the working directory, so the way to our package is given here.
    start = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from {module} import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-B", "-X", "utf8", *flags, "-c", start, *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
