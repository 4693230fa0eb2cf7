"""The client of one request: it gets its answer for as long as it is there and reads."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import orjson
from starlette.types import Receive, Send

from app.api.v1.refusal import Refusal, refusal
from graphs.errors import PilothouseError

log = logging.getLogger("pilothouse.v1")

Headers = Sequence[tuple[bytes, bytes]]

JSON: Final = (b"content-type", b"application/json")
EVENTS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
DONE: Final = b"data: [DONE]\n\n"
PATIENCE_S: Final = 30.0
LOOK_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Whole:
    """An answer in one piece."""

    body: bytes
    status: int = 200


def openai_break(told: Refusal) -> bytes:
    """The last frame of a stream of chat completions that broke."""
    return b"data: " + orjson.dumps(told.openai()) + b"\n\n"


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer as frames of an event stream, the last one included; errors before the first frame become a status.

    `broke` makes the frame that ends a stream which fails later.
    """

    frames: AsyncGenerator[bytes, None]
    broke: Callable[[Refusal], bytes] = openai_break


class Client:
    """Entered, it cancels the task that serves it when it leaves, or takes nothing of a stream for `patience_s` (twice
    that at most); the cancellation ends at the exit. `stop` cancels it too, and tells the client why.

    What is sent but not taken is bounded by the socket's buffers: sending waits, and with it the model's stream.
    """

    def __init__(self, receive: Receive, send: Send, patience_s: float = PATIENCE_S) -> None:
        self._receive, self._send, self._patience_s = receive, send, patience_s
        self._gone = self._answered = False
        self._stopped: PilothouseError | None = None
        self._sent, self._stuck, self._sending = 0, -1, False
        self._timer: asyncio.TimerHandle | None = None
        self._leaving: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        serving = asyncio.current_task()
        assert serving is not None
        self._serving = serving
        # Most answers come before a client could think of leaving: a timer costs a tenth of a task that waits.
        self._looking = serving.get_loop().call_later(LOOK_S, self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._looking.cancel()
        if self._leaving is not None:
            self._leaving.remove_done_callback(self._leave)
            self._leaving.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if kind is asyncio.CancelledError and self._gone:
            self._serving.uncancel()  # its upstream call is closed, and nobody waits for an answer
            return True
        if kind is asyncio.CancelledError and self._stopped is not None:
            self._serving.uncancel()
            raise self._stopped from error
        return False

    def stop(self, error: PilothouseError) -> None:
        """End the answer with `error`, as a status or inside the stream; one that has been given is left alone."""
        if not self._gone and not self._answered and self._stopped is None:
            self._stopped = error
            self._serving.cancel()

    async def take(self, answer: Whole | Streamed, headers: Headers, request_id: str) -> None:
        if isinstance(answer, Streamed):
            await self._take_frames(answer, headers, request_id)
            return
        self._answered = True
        length = (b"content-length", str(len(answer.body)).encode())
        await self._send({"type": "http.response.start", "status": answer.status, "headers": [JSON, length, *headers]})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def _take_frames(self, answer: Streamed, headers: Headers, request_id: str) -> None:
        """The frames; a failure after the first is told in the stream, and nothing follows it."""
        send, begun, last = self._send, False, b""
        try:
            async with aclosing(answer.frames) as frames:
                async for frame in frames:
                    if not begun:
                        begun = True
                        self._watch()
                        await send({"type": "http.response.start", "status": 200, "headers": [*EVENTS, *headers]})
                    self._sending = True
                    await send({"type": "http.response.body", "body": frame, "more_body": True})
                    self._sending = False
                    self._sent += 1
        except Exception as error:
            if not begun:
                raise
            told = refusal(error)
            if told.status == 500:
                log.exception("stream failed", extra={"requestId": request_id})
            last = answer.broke(told)
        except asyncio.CancelledError:
            if self._stopped is None or not begun:
                raise
            self._serving.uncancel()
            last = answer.broke(refusal(self._stopped))
        self._answered = True
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def _watch(self) -> None:
        """Every `patience_s`, at no cost for each frame: one that is on its way twice is one that nobody takes."""
        if self._sending and self._sent == self._stuck:
            log.info("a client stopped reading")
            self._cancel()
            return
        self._stuck = self._sent if self._sending else -1
        self._timer = self._serving.get_loop().call_later(self._patience_s, self._watch)

    def _look(self) -> None:
        """From now on, notice at once when the client leaves."""
        self._leaving = asyncio.ensure_future(_left(self._receive))
        self._leaving.add_done_callback(self._leave)

    def _leave(self, left: "asyncio.Future[None]") -> None:
        if not left.cancelled():
            self._cancel()

    def _cancel(self) -> None:
        self._gone = True
        self._serving.cancel()


async def _left(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
