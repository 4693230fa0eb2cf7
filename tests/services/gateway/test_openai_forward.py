"""What passes through unread, and what is read of it all the same: its end, its usage, its errors."""

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from app.services.gateway.openai_forward import Frames
from app.services.gateway.provider import Timeouts, WireEnd, WireEvent
from graphs.errors import UpstreamError, UpstreamRateLimited, UpstreamTimeout, UpstreamUnauthorized
from graphs.types import Usage
from tests.fake_openai import (
    GREETING,
    SHORT,
    USAGE,
    Answer,
    chunk,
    drips,
    event,
    events,
    fake_openai,
    never,
    sends,
    sends_json,
)
from tests.services.gateway.test_broken import broken
from tests.services.gateway.wires import OPENAI

ASK: Mapping[str, Any] = {"messages": [{"role": "user", "content": "Say hello"}], "seed": 7}
# A forwarded tool call is the client's to read; one that was cut passes as it was sent.
UNREAD = {"tool arguments cut short", "tool arguments of another shape", "a tool call without a name"}
PATIENT = Timeouts()


async def forward(answer: Answer, *, stream: bool = True, timeouts: Timeouts = PATIENT) -> list[WireEvent | WireEnd]:
    async with fake_openai(answer) as fake:
        provider = fake.provider()
        try:
            return [item async for item in provider.forward(ASK, stream=stream, timeouts=timeouts)]
        finally:
            await provider.close()


async def end(answer: Answer, *, stream: bool = True) -> WireEnd:
    told = (await forward(answer, stream=stream))[-1]
    assert isinstance(told, WireEnd)
    return told


async def test_events_pass_byte_for_byte_and_the_end_says_what_was_used() -> None:
    *passed, told = await forward(sends(events(*GREETING)))
    assert [item.raw for item in passed if isinstance(item, WireEvent)] == [orjson.dumps(each) for each in GREETING]
    assert "".join(item.text for item in passed if isinstance(item, WireEvent)) == "Hello, world"
    assert told == WireEnd(Usage(19, 3), "stop", "gpt-test-2026-01-01")


async def test_a_request_passes_with_its_model_replaced_and_usage_asked_for() -> None:
    async with fake_openai(sends(events(*GREETING))) as fake:
        provider = fake.provider(served_name="theirs")
        _ = [item async for item in provider.forward({**ASK, "model": "ours"}, stream=True, timeouts=PATIENT)]
        await provider.close()
        assert fake.requests == [{**ASK, "model": "theirs", "stream": True, "stream_options": {"include_usage": True}}]


WHOLE = chunk(choices=[{"index": 0, "message": {"content": "all"}, "finish_reason": "length"}], usage=USAGE)


async def test_a_whole_answer_is_one_event() -> None:
    passed, told = await forward(sends_json(WHOLE), stream=False)
    assert isinstance(passed, WireEvent)
    assert (passed.data, passed.text, passed.spoke) == (WHOLE, "all", True)
    assert told == WireEnd(Usage(19, 3), "length", "gpt-test-2026-01-01")


BROKEN_HERE = {name: case for name, case in broken(OPENAI).items() if name not in UNREAD}


async def test_u03_comments_do_not_keep_a_silent_answer_alive() -> None:
    with pytest.raises(UpstreamTimeout, match="next token"):
        await forward(drips(events(*GREETING[:3], done=False), then=b": ping\n\n"), timeouts=SHORT)


@pytest.mark.parametrize(("answer", "kind"), BROKEN_HERE.values(), ids=BROKEN_HERE.keys())
async def test_u03_u06_u07_u11_a_broken_answer_is_an_error_and_has_no_end(
    answer: Answer, kind: type[UpstreamError]
) -> None:
    with pytest.raises(UpstreamError) as raised:
        await forward(answer, timeouts=SHORT if kind is UpstreamTimeout else PATIENT)
    assert type(raised.value) is kind


PAGES: Mapping[str, tuple[Answer, type[UpstreamError]]] = {
    "a page": (sends(b"<html>", kind="text/html"), UpstreamError),
    "cut": (sends(orjson.dumps(WHOLE)[:50], kind="application/json"), UpstreamError),
    "no choice": (sends_json({"choices": []}), UpstreamError),
    "an error in a 200": (sends_json({"error": {"code": "rate_limit_exceeded"}}), UpstreamRateLimited),
    "a refused key": (sends_json({"error": {"code": "invalid_api_key"}}, status=401), UpstreamUnauthorized),
    "no head": (never, UpstreamTimeout),
    "a body without end": (drips(then=b" "), UpstreamTimeout),
}


@pytest.mark.parametrize(("answer", "kind"), PAGES.values(), ids=PAGES.keys())
async def test_u07_u11_a_broken_whole_answer_is_an_error(answer: Answer, kind: type[UpstreamError]) -> None:
    with pytest.raises(UpstreamError) as raised:
        await forward(answer, stream=False, timeouts=SHORT if kind is UpstreamTimeout else PATIENT)
    assert type(raised.value) is kind


async def test_r06_what_a_server_has_counted_is_told_with_the_failure() -> None:
    for answer, stream in (
        (sends_json({"choices": [], "usage": USAGE}), False),
        (sends(events(chunk("a"), chunk(choices=[], usage=USAGE), done=False), cut=True), True),
    ):
        with pytest.raises(UpstreamError) as raised:
            await forward(answer, stream=stream)
        assert raised.value.usage == Usage(19, 3)


ZOO: list[Any] = [
    None, {}, [], "19", {"prompt_tokens": 19}, {"prompt_tokens": "19", "completion_tokens": "3"},
    {"prompt_tokens": -1, "completion_tokens": 3}, {"prompt_tokens": 19, "completion_tokens": 1e308},
    {"prompt_tokens": 19.5, "completion_tokens": 3}, {"prompt_tokens": True, "completion_tokens": 3},
    {"prompt_tokens": 19, "completion_tokens": 0},
]  # fmt: skip


@pytest.mark.parametrize("usage", ZOO, ids=repr)
async def test_r06_u10_usage_that_cannot_be_true_is_left_to_be_counted(usage: Any) -> None:
    assert (await end(sends(events(*GREETING[:5], chunk(choices=[], usage=usage))))).usage is None
    assert (await end(sends_json(WHOLE | {"usage": usage}), stream=False)).usage is None


@pytest.mark.parametrize("usage", [usage for usage in ZOO[1:] if usage != ZOO[-1]], ids=repr)
async def test_r06_usage_that_cannot_be_true_is_told_to_nobody(usage: Any) -> None:
    streamed = await forward(sends(events(*GREETING[:5], chunk(choices=[], usage=usage))))
    whole = await forward(sends_json(WHOLE | {"usage": usage}), stream=False)
    for passed in (streamed[-2], whole[0]):
        assert isinstance(passed, WireEvent)
        assert passed.data["usage"] is None
        assert orjson.loads(passed.raw) == passed.data


CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


@pytest.mark.parametrize(
    ("piece", "beside"),
    [
        ({"content": None, "tool_calls": [CALL]}, 'weather{"city": "Oslo"}'),
        ({"role": "assistant", "content": "", "reasoning_content": "Let me see."}, "Let me see."),
        ({"content": [{"type": "text", "text": "In parts"}, 7]}, "In parts"),
        ({"refusal": "I cannot."}, "I cannot."),
        ({"audio": {"data": "AAAA"}}, ""),
    ],
)
async def test_output_that_is_no_text_is_given_to_be_counted(piece: Mapping[str, Any], beside: str) -> None:
    streamed = await forward(sends(events(chunk(delta=piece), chunk(finish="stop"))))
    choice = {"index": 0, "message": piece, "finish_reason": "stop"}
    whole = await forward(sends_json(WHOLE | {"choices": [choice]}), stream=False)
    for passed in (streamed[0], whole[0]):
        assert isinstance(passed, WireEvent)
        assert (passed.spoke, passed.text, passed.beside) == (True, "", beside)


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_r06_usage_that_is_no_number_is_left_to_be_counted_and_passes_as_json(number: bytes) -> None:
    garbage = b'data: {"choices": [], "usage": {"prompt_tokens": ' + number + b', "completion_tokens": 3}}\n\n'
    *passed, told = await forward(sends(events(*GREETING[:5], done=False), garbage))
    assert isinstance(told, WireEnd)
    assert told.usage is None
    assert all(orjson.loads(item.raw) for item in passed if isinstance(item, WireEvent))


async def test_r06_usage_told_twice_counts_once_and_no_more_is_cached_than_was_read() -> None:
    cached = {"prompt_tokens_details": {"cached_tokens": 500}}
    growing = [chunk(choices=[], usage=USAGE | {"completion_tokens": count} | cached) for count in (1, 3)]
    assert (await end(sends(events(*GREETING[:5], *growing)))).usage == Usage(19, 3, cached_input_tokens=19)


ODD: Mapping[str, tuple[Answer, str]] = {
    "no [DONE]": (sends(events(*GREETING, done=False)), "stop"),
    "a finish reason of its own": (sends(events(chunk("a"), chunk(finish="overloaded"))), "unknown"),
    "empty choices between": (sends(events(chunk(choices=[]), chunk(choices=None), chunk(finish="stop"))), "stop"),
    "the connection breaks after the end": (sends(events(*GREETING[:5], done=False), cut=True), "stop"),
    "only a tool call": (
        sends(events(chunk(delta={"tool_calls": [{"index": 0}]}), chunk(finish="tool_calls"))),
        "tool_calls",
    ),
    "CRLF, comments, event names": (
        sends(b": ping\r\n\r\nevent: x\r\n" + events(*GREETING).replace(b"\n", b"\r\n")),
        "stop",
    ),
    "a byte order mark": (sends(b"\xef\xbb\xbf" + events(*GREETING)), "stop"),
    "byte by byte": (sends(*[bytes([byte]) for byte in events(*GREETING[1:])]), "stop"),
    "choices that are none": (
        sends(events(chunk(choices=[7, "a", None, {"index": [0]}]), chunk(finish="stop"))),
        "stop",
    ),
}


@pytest.mark.parametrize(("answer", "finish"), ODD.values(), ids=ODD.keys())
async def test_u07_u08_an_odd_but_whole_answer_passes(answer: Answer, finish: str) -> None:
    assert (await end(answer)).finish_reason == finish


def test_u07_frames_are_the_same_however_the_bytes_are_cut() -> None:
    stream = event({"a": "鍵"}) + b": ping\n\n" + event({"b": 1}) + b"data: [DONE]\n\n"
    whole = Frames("m").feed(stream)
    for size in range(1, len(stream)):
        frames = Frames("m")
        pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [data for piece in pieces for data in frames.feed(piece)] + frames.close() == whole
