"""Runs model-written Python in a child process. Off unless the file turns it on, and then with its risk accepted.

Covered, by the kernel: no environment, no file but the standard library and a temporary folder, no network, no other
process to start, signal or look into, limits of memory, time and output. Not covered: a fault of the kernel or of the
interpreter, the processor time of others, and what can be learnt from how long things take. A machine whose kernel
cannot keep it in does not run it at all. Callers that need more use a container or a machine of its own.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from contextlib import suppress
from typing import ClassVar, Final

from pydantic import Field, model_validator

from app.apart import apart
from app.config.part import Part, Seconds
from app.confined import lacking
from app.services.tools.tool import ToolCall, ToolOutput
from graphs.errors import ToolRefused
from graphs.types import ToolSpec

CAVEAT: Final = (
    "it runs programs that a model wrote on this machine. The kernel keeps them from files, the network and other "
    "processes; a fault of the kernel or of the interpreter lets them out. Set accepted: true to take that risk"
)
_CHILD: Final = "app.services.tools.python_child"
_READ_BYTES: Final = 1 << 16
_LEAST_BYTES: Final = 4_096  # of a file, were it empty: inodes run out too
_LOOK_S: Final = 0.1  # between looks at how much lies in the folder


class RunPythonOptions(Part):
    """The `options` of the tool."""

    accepted: bool = Field(default=False, description="That its risk is taken; see what it does not protect from.")
    cpu_s: int = Field(default=5, ge=1, le=300)
    timeout_s: Seconds = 15.0
    memory_mb: int = Field(default=256, ge=64, le=16_384)
    disk_mb: int = Field(default=64, ge=1, le=4_096, description="All files of one program together, about.")
    max_chars: int = Field(default=10_000, ge=200, le=1_000_000)

    @model_validator(mode="after")
    def _is_known(self) -> "RunPythonOptions":
        if not self.accepted:
            raise ValueError(CAVEAT)
        if why := lacking():
            raise ValueError(f"it cannot be kept in on this machine: {why}")
        return self


class RunPython:
    spec: ClassVar[ToolSpec] = ToolSpec(
        name="run_python",
        description="Run a Python program and read what it prints: calculations, statistics, parsing and transforming "
        "text. Standard library only, no network, no files but in its own empty folder.",
        parameters={
            "type": "object",
            "properties": {
                "code": {
                    "type": "string",
                    "description": "The whole program; what is not printed is not seen",
                    "minLength": 1,
                    "maxLength": 50_000,
                    "pattern": r"\S",
                }
            },
            "required": ["code"],
            "additionalProperties": False,
        },
        risk="destructive",
        examples=(("What is the 50th prime?", {"code": "print(229)"}),),
    )
    examples: ClassVar[tuple[str, ...]] = (
        "Write and run a Python program that simulates a dice game.",
        "Run this code: print(sum(range(100)))",
        "Compute the standard deviation of these numbers with Python.",
    )

    def __init__(self, options: RunPythonOptions) -> None:
        self._options = options

    async def run(self, call: ToolCall) -> ToolOutput:
        folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="pilothouse-python-")
        try:
            return ToolOutput(await self._run(str(call.arguments["code"]), folder))
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _run(self, code: str, folder: str) -> str:
        most = self._options
        given = (folder, str(most.cpu_s), str(most.memory_mb << 20))
        merged = asyncio.subprocess.STDOUT
        async with apart(_CHILD, *given, flags=("-S",), stderr=merged, cwd=folder) as process:
            watching = asyncio.create_task(self._watch(process, folder))
            try:
                async with asyncio.timeout(most.timeout_s):
                    said = await self._talk(process, code)
            except TimeoutError as error:
                raise ToolRefused(f"the program took longer than {most.timeout_s:g} s") from error
            finally:
                watching.cancel()
        return _shown(said, most.max_chars, _ended(process.returncode, most))

    async def _talk(self, process: asyncio.subprocess.Process, code: str) -> bytes:
        """Give it the program and take what it prints, until there is more than is shown."""
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(ConnectionError):  # it died before it had read all of it
            process.stdin.write(code.encode("utf-8", "replace"))
            await process.stdin.drain()
        process.stdin.close()
        said = bytearray()
        while len(said) <= 4 * self._options.max_chars:  # no character has more than four bytes
            if not (piece := await process.stdout.read(_READ_BYTES)):
                await process.wait()
                break
            said += piece
        return bytes(said)

    async def _watch(self, process: asyncio.subprocess.Process, folder: str) -> None:
        """End a program that fills the disk: the kernel bounds one file, not how many there are."""
        while process.returncode is None:
            await asyncio.sleep(_LOOK_S)
            if await asyncio.to_thread(_weight_bytes, folder) > self._options.disk_mb << 20:
                os.killpg(process.pid, signal.SIGKILL)
                return


def _weight_bytes(folder: str) -> int:
    """What its files take, an empty one too. There are no folders in it."""
    weight = 0
    for each in os.scandir(folder):
        with suppress(OSError):  # it is gone by now
            weight += max(_LEAST_BYTES, each.stat(follow_symlinks=False).st_blocks * 512)
    return weight


def _ended(returncode: int | None, most: RunPythonOptions) -> str:
    if returncode == -signal.SIGXCPU:
        return f"[the program was ended: more than {most.cpu_s} s of computing]"
    if returncode is not None and returncode < 0:
        return "[the program was ended: too much memory, disk or output, or a broken interpreter]"
    return f"[the program failed with {returncode}]" if returncode else ""


def _shown(said: bytes, max_chars: int, end: str) -> str:
    text = said.decode("utf-8", "replace")
    if len(text) > max_chars:
        text = f"{text[:max_chars]}\n[cut]"
    return "\n".join(filter(None, (text.rstrip("\n"), end))) or "[the program printed nothing]"
