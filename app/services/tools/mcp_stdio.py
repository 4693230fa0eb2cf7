"""An MCP server as a child process that speaks on its standard streams, a message a line.

In the place of the SDK's own: the child gets the environment that it is given and nothing else, a line has a bound, and
a child that has to go is gone with all that it started when this is left. What it says on its standard error is not
kept but for the end of it, which is logged when the child ends by itself.
"""

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from graphs.errors import UpstreamError

log = logging.getLogger("pilothouse.tools")

MAX_LINE_BYTES: Final = 4 << 20
GRACE_S: Final = 1.0  # to end by itself once its input is closed, and again once it is asked to
_LOOKS: Final = 50  # for its end, within the grace
_KEPT_CHARS: Final = 2_000

Heard = SessionMessage | Exception
Streams = tuple[MemoryObjectReceiveStream[Heard], MemoryObjectSendStream[SessionMessage]]


@asynccontextmanager
async def stdio(name: str, command: str, args: Sequence[str], environment: Mapping[str, str]) -> AsyncIterator[Streams]:
    """A child and the streams to it. Raises UpstreamError where it cannot be started, inside a group when it ends or
    says what is too long."""
    program = shutil.which(command)
    if program is None:
        raise UpstreamError(f"{name}: there is no command {command!r}")
    try:
        child = await asyncio.create_subprocess_exec(
            program,
            *args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=dict(environment),
            limit=MAX_LINE_BYTES,
            start_new_session=True,  # so that a signal reaches what it has started too
        )
    except OSError as error:
        raise UpstreamError(f"{name} cannot be started ({type(error).__name__})") from error
    heard, read = anyio.create_memory_object_stream[Heard](0)
    write, said = anyio.create_memory_object_stream[SessionMessage](0)
    pipes = _Pipes(name, child)
    try:
        async with heard, read, write, said, anyio.create_task_group() as tasks:
            tasks.start_soon(pipes.hear, heard)
            tasks.start_soon(pipes.say, said)
            tasks.start_soon(pipes.mutter)
            yield read, write
            pipes.closing = True
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await _end(child, gently=pipes.closing)


class _Pipes:
    """The three streams of a child. `closing` says that its end is ours."""

    def __init__(self, name: str, child: asyncio.subprocess.Process) -> None:
        self._name, self._child = name, child
        self._muttered = ""
        self.closing = False

    async def hear(self, heard: MemoryObjectSendStream[Heard]) -> None:
        stdout = self._child.stdout
        assert stdout is not None, "it is a pipe"
        while True:
            try:
                line = await stdout.readuntil(b"\n")
            except asyncio.IncompleteReadError as error:
                log.warning(
                    "an MCP server has ended", extra={"server": self._name, "said": self._muttered[-_KEPT_CHARS:]}
                )
                raise UpstreamError(f"{self._name} has ended") from error
            except asyncio.LimitOverrunError as error:
                raise UpstreamError(f"{self._name} sent a message of more than {MAX_LINE_BYTES} bytes") from error
            if line.isspace():
                continue
            try:
                message = jsonrpc_message_adapter.validate_json(line, by_name=False)
            except ValueError:
                # Servers print what they should log: a line that is no message concerns nobody who waits.
                log.info("an MCP server has printed what is no message", extra={"server": self._name})
                continue
            await heard.send(SessionMessage(message))

    async def say(self, said: MemoryObjectReceiveStream[SessionMessage]) -> None:
        stdin = self._child.stdin
        assert stdin is not None, "it is a pipe"
        async for each in said:
            stdin.write(each.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            try:
                await stdin.drain()
            except OSError as error:
                raise UpstreamError(f"{self._name} reads no more") from error

    async def mutter(self) -> None:
        """Read what it says beside its messages: a full pipe would stop it."""
        stderr = self._child.stderr
        assert stderr is not None, "it is a pipe"
        while piece := await stderr.read(4_096):
            self._muttered = (self._muttered + piece.decode("utf-8", "replace"))[-_KEPT_CHARS:]


async def _end(child: asyncio.subprocess.Process, *, gently: bool) -> None:
    """See the child's end, and that of all it has started. One that is not treated gently is killed at once."""
    if child.stdin is not None:
        child.stdin.close()
    if gently and not await _gone(child):
        _signal(child, signal.SIGTERM)
        await _gone(child)
    _signal(child, signal.SIGKILL)
    await _gone(child)
    # Something outside the session of the child may hold its pipes; the transport would wait for that.
    child._transport.close()  # type: ignore[attr-defined]


async def _gone(child: asyncio.subprocess.Process) -> bool:
    """Whether it ends within the grace. Not by its `wait`, which waits for the end of the pipes too."""
    for _ in range(_LOOKS):
        if child.returncode is not None:
            return True
        await asyncio.sleep(GRACE_S / _LOOKS)
    return child.returncode is not None


def _signal(child: asyncio.subprocess.Process, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
