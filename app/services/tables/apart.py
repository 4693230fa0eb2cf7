"""Starts the process of `child.py` for one order and ends it in time, whatever the order does to it."""

import asyncio
import json
import signal
from collections.abc import Mapping
from typing import Any, Final

from app.apart import apart
from app.services.tables.child import CPU_S
from graphs.errors import Invalid

_BROKEN: Final = "it broke the engine, or needs more memory than there is for it"


class SqlFailed(Invalid):
    """What was asked of the tables cannot be answered; the message says why in the engine's words."""

    code = "sql_failed"


async def ordered(order: Mapping[str, Any], *, wall_s: float, max_file_bytes: int = 0) -> dict[str, Any]:
    """What the child answers. Raises SqlFailed."""
    written = json.dumps({**order, "max_file_bytes": max_file_bytes}).encode()
    async with apart("app.services.tables.child") as process:
        try:
            async with asyncio.timeout(wall_s):
                answer, _ = await process.communicate(written)
        except TimeoutError as error:
            raise SqlFailed(f"it took longer than {wall_s:g} s") from error
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
