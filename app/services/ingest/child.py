"""Parses one hostile file in a process of its own, under limits that the kernel keeps.

Covered: 1 GiB of memory, 30 s of CPU, 60 s of wall time, no file written, no environment, and the process group is
killed at the end of time. Not covered: the network stays reachable; the parsers have no use for it.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from app.services.ingest.detect import Format, decode
from app.services.ingest.document import Block, ParsedDocument
from graphs.errors import DocumentUnreadable

MEMORY_BYTES = 1 << 30
CPU_S = 30
WALL_S = 60.0
LIMIT_CHARS = 20_000_000  # about ten thousand pages; more is a bomb or a mistake
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
        raise DocumentUnreadable(_death(process.returncode), field="file")
    found = json.loads(answer)
    if "reason" in found:
        raise DocumentUnreadable(found["reason"], field="file")
    blocks = tuple(Block(**block) for block in found.pop("blocks"))
    return ParsedDocument(**found | {"blocks": blocks, "notes": tuple(found["notes"])})


def main() -> None:
    """The child: file in on stdin, JSON out on stdout."""
    _limit()
    try:
        document = _parser(sys.argv[1])(sys.stdin.buffer.read())
        answer = asdict(document)
        if len(document.text) > LIMIT_CHARS:
            answer = {"reason": f"the document holds more than {LIMIT_CHARS} characters"}
    except DocumentUnreadable as error:
        answer = {"reason": error.message}
    except MemoryError:
        answer = {"reason": "reading the document takes too much memory"}
    except Exception as error:
        # The edge of a worker: the class says what broke, the message could quote the document.
        answer = {"reason": f"the document is broken ({type(error).__name__})"}
    sys.stdout.write(json.dumps(answer))


def _parser(kind: str) -> Callable[[bytes], ParsedDocument]:
    # One parser for each process: importing the others would only cost time.
    if kind == "pdf":
        from app.services.ingest.pdf import parse_pdf

        return parse_pdf
    if kind == "html":
        from app.services.ingest.html import parse_html

        return parse_html
    from app.services.ingest.markdown import parse_markdown, parse_text

    read = parse_markdown if kind == "markdown" else parse_text
    return lambda data: read(decode(data))


def _limit() -> None:
    import resource  # POSIX alone has it; elsewhere only the wall time holds

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _death(returncode: int) -> str:
    if returncode in {-signal.SIGXCPU, -signal.SIGKILL}:
        return f"reading the document took more than {CPU_S} s of computing, or too much memory"
    return "the document broke its reader"
