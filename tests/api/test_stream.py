"""The frames of a stream, and what it does for readers that are slow, silent or gone."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from app.api.stream import EventStream, encode
from app.records import RunEvent
from graphs.errors import UpstreamError

TEXT = st.text(st.characters() | st.sampled_from("\r\n:\u2028\x85\ud800"))


@given(TEXT)
def test_x09_any_text_comes_back_from_its_frame(text: str) -> None:
    frame = encode(RunEvent(7, "message.delta", {"text": text})).decode()
    number, kind, data, *end = frame.split("\n")
    assert (number, kind, end) == ("id: 7", "event: message.delta", ["", ""])
    assert "\r" not in frame
    shown = text.encode("utf-8", "replace").decode() if not _encodable(text) else text
    assert len(json.loads(data.removeprefix("data: "))["text"]) == len(shown)
    if _encodable(text):
        assert json.loads(data.removeprefix("data: "))["text"] == text


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


class Wire:
    """One side of an ASGI exchange: what was sent, and when the client goes."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.gone, self.more = asyncio.Event(), True

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.body":
            self.sent.append(message["body"])
            self.more = message["more_body"]

    async def read(self, events: AsyncIterator[RunEvent], **options: Any) -> None:
        scope = {"type": "http", "request_id": "0"}
        await EventStream(events, **options)(scope, self.receive, self.send)


async def deltas(count: int) -> AsyncIterator[RunEvent]:
    for number in range(1, count + 1):
        yield RunEvent(number, "message.delta", {"text": "x"})


async def test_what_is_ready_together_goes_out_together() -> None:
    wire = Wire()
    await wire.read(deltas(100))
    assert b"".join(wire.sent) == b"".join([encode(event) async for event in deltas(100)])
    assert len(wire.sent) <= 2
    assert not wire.more


async def test_a_silent_stream_says_that_it_is_there() -> None:
    async def silent() -> AsyncIterator[RunEvent]:
        while not any(piece.startswith(b":") for piece in wire.sent):
            await asyncio.sleep(0.01)
        yield RunEvent(1, "run.completed", {})

    wire = Wire()
    await wire.read(silent(), heartbeat_s=0.01)
    assert wire.sent[-1].endswith(b"event: run.completed\ndata: {}\n\n")


async def test_a_reader_who_leaves_lets_go_of_the_events() -> None:
    closed = asyncio.Event()

    async def endless() -> AsyncIterator[RunEvent]:
        try:
            yield RunEvent(1, "run.started", {})
            await asyncio.Event().wait()
        finally:
            closed.set()

    wire = Wire()
    reading = asyncio.create_task(wire.read(endless()))
    while not wire.sent:
        await asyncio.sleep(0)
    wire.gone.set()
    await reading
    assert closed.is_set()
    assert wire.more


async def test_a_source_that_breaks_off_ends_in_an_event() -> None:
    for error, code in ((UpstreamError("the store is away"), "upstream_error"), (RuntimeError("x"), "internal_error")):

        async def broken(error: Exception = error) -> AsyncIterator[RunEvent]:
            yield RunEvent(1, "run.started", {})
            raise error

        wire = Wire()
        await wire.read(broken())
        last = b"".join(wire.sent).decode().strip().split("\n\n")[-1]
        assert "event: run.failed" in last
        assert f'"code":"{code}"' in last


async def test_a_reader_who_does_not_read_holds_only_a_bounded_backlog() -> None:
    taken = 0

    async def counted() -> AsyncIterator[RunEvent]:
        nonlocal taken
        async for event in deltas(10_000):
            taken += 1
            yield event

    class Stuck(Wire):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

    wire = Stuck()
    reading = asyncio.create_task(wire.read(counted()))
    for _ in range(1_000):
        await asyncio.sleep(0)
    assert 0 < taken < 1_000
    wire.gone.set()
    await reading
