"""The process that reads one hostile file, under limits that the kernel keeps: 1 GiB of memory, 30 s of CPU, no file.

It is started for every file, so it imports nothing that reading does not need: asyncio alone would double its start.
"""

import json
import signal
import sys
from dataclasses import asdict
from typing import cast

from app.services.ingest.detect import Format
from app.services.ingest.reader import read
from graphs.errors import DocumentUnreadable

MEMORY_BYTES = 1 << 30
CPU_S = 30
LIMIT_CHARS = 20_000_000  # about ten thousand pages; more is a bomb or a mistake
LIMIT_BLOCKS = 500_000


def main() -> None:
    """The file comes in on stdin; JSON goes out on stdout, the document or the reason why there is none."""
    _limit()
    try:
        document = read(cast(Format, sys.argv[1]), sys.stdin.buffer.read())
        if len(document.text) > LIMIT_CHARS or len(document.blocks) > LIMIT_BLOCKS:
            answer = {"reason": f"the document holds more than {LIMIT_CHARS} characters or {LIMIT_BLOCKS} paragraphs"}
        else:
            answer = asdict(document)
    except DocumentUnreadable as error:
        answer = {"reason": error.message}
    except MemoryError:
        answer = {"reason": "reading the document takes too much memory"}
    except Exception as error:
        # The edge of a worker: the class says what broke, the message could quote the document.
        answer = {"reason": f"the document is broken ({type(error).__name__})"}
    sys.stdout.write(json.dumps(answer))


def death(returncode: int) -> str:
    """What the end of such a process says about its document."""
    if returncode == -signal.SIGXCPU:
        return f"reading the document took more than {CPU_S} s of computing"
    # A library in C or Rust ends its process where Python raises MemoryError; from outside the two look alike.
    return f"the document broke its reader, or needs more than {MEMORY_BYTES >> 20} MiB of memory to be read"


def _limit() -> None:
    import resource  # POSIX alone has it; elsewhere only the wall time holds

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
