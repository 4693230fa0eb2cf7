"""Reads one hostile file in a process of its own, which dies in place of the server.

Covered: the limits of `child.py`, 60 s of wall time, no environment, and the process group is killed at the end of
time. Not covered: the network stays reachable; the readers have no use for it.
"""

import asyncio
import json

from app.apart import apart
from app.services.ingest.child import death
from app.services.ingest.detect import Format
from app.services.ingest.document import Block, ParsedDocument, Place
from graphs.errors import DocumentUnreadable

WALL_S = 60.0


async def parse_apart(kind: Format, data: bytes, *, wall_s: float = WALL_S) -> ParsedDocument:
    """Raises DocumentUnreadable with the reason, whatever the file does to its parser."""
    async with apart("app.services.ingest.child", kind) as process:
        try:
            async with asyncio.timeout(wall_s):
                answer, _ = await process.communicate(data)
        except TimeoutError as error:
            raise DocumentUnreadable(f"reading the document took longer than {wall_s:g} s", field="file") from error
    if process.returncode:
        raise DocumentUnreadable(death(process.returncode), field="file")
    found = json.loads(answer)
    if "reason" in found:
        raise DocumentUnreadable(found["reason"], field="file")
    blocks = tuple(Block(**block | {"place": Place(**block["place"])}) for block in found.pop("blocks"))
    return ParsedDocument(**found | {"blocks": blocks, "notes": tuple(found["notes"])})
