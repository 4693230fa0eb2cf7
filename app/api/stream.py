"""Server-sent events: a run's events as text/event-stream.

A reader that leaves only detaches; whether the run goes on is the runner's to say. What is ready at the same moment
goes out in one piece; a quiet stream carries a comment every 15 s, so that proxies keep it open.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Final

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.records import RunEvent
from app.services.store.text import clean_json
from graphs.errors import PilothouseError

log = logging.getLogger("pilothouse.api")

HEARTBEAT_S: Final = 15.0
PATIENCE_S: Final = 60.0  # how long one piece may wait for a reader that does not take it
BACKLOG: Final = 256  # events read ahead for a slow reader; the run's own log is what they are read from
_COMMENT: Final = b": still here\n\n"


def dumps(data: Any) -> bytes:
    """One line of JSON. What JSON or UTF-8 cannot hold is replaced, as the store would."""
    try:
        return orjson.dumps(data, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        return orjson.dumps(clean_json(data), default=str, option=orjson.OPT_NON_STR_KEYS)


def encode(event: RunEvent) -> bytes:
    """The event as a frame. JSON escapes every line end, so no text can begin a field or an event of its own.

    What is numbered 0 is no event of the run and has no id: a reader comes back behind the last one that has.
    """
    id_line = b"id: %d\n" % event.number if event.number else b""
    return b"%sevent: %s\ndata: %s\n\n" % (id_line, event.type.encode(), dumps(dict(event.data)))


def failure(error: PilothouseError) -> Mapping[str, Any]:
    """The data of a `run.failed` that the stream itself has to report."""
    return {"error": {"kind": error.kind, "code": error.code, "message": error.message}}


async def guarded(
    events: AsyncGenerator[RunEvent, None] | AsyncIterator[RunEvent], broken: str = "run.failed"
) -> AsyncIterator[RunEvent]:
    """The same events; a source that breaks off ends with a `broken` numbered 0, which is never stored."""
    try:
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                yield event
    except PilothouseError as error:
        yield RunEvent(0, broken, failure(error))
    except Exception:
        # The edge of a request whose head is out: the reader gets an event in place of a status.
        log.exception("stream failed")
        yield RunEvent(0, broken, failure(PilothouseError("the stream broke off; the log has the cause")))


class EventStream(Response):
    """Sends events until they end or the reader leaves."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[RunEvent], *, broken: str = "run.failed", heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self.status_code, self.background = 200, None
        self._events, self._heartbeat_s = guarded(events, broken), heartbeat_s
        # X-Accel-Buffering tells nginx to pass each piece on at once.
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        frames: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG)
        reading = asyncio.create_task(self._read(frames))
        writing = asyncio.create_task(self._write(frames, send))
        leaving = asyncio.create_task(left(receive))
        tasks = {reading, writing, leaving}
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if not writing.cancelled() and isinstance(error := writing.exception(), Exception):
            log.info("a reader was dropped", extra={"requestId": scope["request_id"], "cause": type(error).__name__})

    async def _read(self, frames: asyncio.Queue[bytes | None]) -> None:
        async for event in self._events:
            await frames.put(encode(event))
        await frames.put(None)

    async def _write(self, frames: asyncio.Queue[bytes | None], send: Send) -> None:
        more = True
        while more:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    ready = [await frames.get()]
            except TimeoutError:
                ready = [_COMMENT]
            while not frames.empty():
                ready.append(frames.get_nowait())
            more = ready[-1] is not None
            body = b"".join(frame for frame in ready if frame is not None)
            async with asyncio.timeout(PATIENCE_S):
                await send({"type": "http.response.body", "body": body, "more_body": more})


async def left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
