"""Reads one hostile file in a process of its own, which dies in place of the server.

Covered: the limits of `child.py`, 60 s of wall time, no environment, and the process group is killed at the end of
time. Not covered: the network stays reachable; the readers have no use for it.
"""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

from app.services.ingest.child import death
from app.services.ingest.detect import Format
from app.services.ingest.document import Block, ParsedDocument, Place
from graphs.errors import DocumentUnreadable

WALL_S = 60.0
_ROOT = Path(__file__).resolve().parents[3]
# Isolated mode reads neither PYTHONPATH nor the working directory, so the way to our package is given here.
_START = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from app.services.ingest.child import main; main()"


async def parse_apart(kind: Format, data: bytes, *, wall_s: float = WALL_S) -> ParsedDocument:
    """Raises DocumentUnreadable with the reason, whatever the file does to its parser."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-B", "-c", _START, kind),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env={},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(wall_s):
            answer, _ = await process.communicate(data)
    except TimeoutError as error:
        raise DocumentUnreadable(f"reading the document took longer than {wall_s:g} s", field="file") from error
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode:
        raise DocumentUnreadable(death(process.returncode), field="file")
    found = json.loads(answer)
    if "reason" in found:
        raise DocumentUnreadable(found["reason"], field="file")
    blocks = tuple(Block(**block | {"place": Place(**block["place"])}) for block in found.pop("blocks"))
    return ParsedDocument(**found | {"blocks": blocks, "notes": tuple(found["notes"])})
