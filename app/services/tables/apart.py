"""Starts the process of `child.py` for one order and ends it in time, whatever the order does to it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.services.tables.child import CPU_S
from graphs.errors import Invalid

_ROOT: Final = Path(__file__).resolve().parents[3]
# Isolated mode reads neither PYTHONPATH nor the working directory, so the way to our package is given here.
_START: Final = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from app.services.tables.child import main; main()"
_BROKEN: Final = "it broke the engine, or needs more memory than there is for it"


class SqlFailed(Invalid):
    """What was asked of the tables cannot be answered; the message says why in the engine's words."""

    code = "sql_failed"


async def ordered(order: Mapping[str, Any], *, wall_s: float, max_file_bytes: int = 0) -> dict[str, Any]:
    """What the child answers. Raises SqlFailed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-B", "-X", "utf8", "-c", _START),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )
    written = json.dumps({**order, "max_file_bytes": max_file_bytes}).encode()
    try:
        async with asyncio.timeout(wall_s):
            answer, _ = await process.communicate(written)
    except TimeoutError as error:
        raise SqlFailed(f"it took longer than {wall_s:g} s") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise SqlFailed(_death(process.returncode))
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError as error:
        raise SqlFailed(_BROKEN) from error
    if "problem" in found:
        raise SqlFailed(found["problem"])
    return found


def _death(returncode: int) -> str:
    if returncode == -signal.SIGXCPU:
        return f"it took more than {CPU_S} s of computing"
    return _BROKEN
