"""What holds on both wires where the upstream answers well or oddly, and of their connections."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from app.services.gateway.provider import Timeouts
from graphs.errors import UpstreamError
from graphs.types import Completion, ModelRequest
from tests import fake_anthropic, fake_openai
from tests.fake_anthropic import SPENT, block, delta, ends, start, stops
from tests.fake_openai import Answer, chunk, drips, never, sends, sends_json
from tests.services.gateway.wires import ANTHROPIC, ASK, OPENAI, Wire, on_both_wires

BRISK = Timeouts(between_tokens_s=0.5)  # only what waits for silence meets it


async def ask(wire: Wire, answer: Answer, request: ModelRequest = ASK) -> list[Any]:
    async with wire.talks(answer, BRISK) as (_, provider):
        return [item async for item in provider.stream(request)]


async def last(wire: Wire, answer: Answer, request: ModelRequest = ASK) -> Completion:
    completion = (await ask(wire, answer, request))[-1]
    assert isinstance(completion, Completion)
    return completion


@on_both_wires
async def test_an_answer_comes_as_deltas_and_one_completion(wire: Wire) -> None:
    *deltas, completion = await ask(wire, sends(wire.greeting))
    assert "".join(delta.text for delta in deltas) == "Hello, world"
    assert completion.text == "Hello, world"
    assert completion.finish_reason == "stop"
    assert not completion.usage.estimated
    assert completion.model.endswith("-test")
    assert completion.model_version.startswith(completion.model + "-2026")  # as the server dates it


@on_both_wires
async def test_tokens_pass_as_they_come_and_those_that_come_together_as_one(wire: Wire) -> None:
    *deltas, _ = await ask(wire, sends(wire.half, wire.greeting.removeprefix(wire.half), pause_s=0.1))
    assert "".join(delta.text for delta in deltas) == "Hello, world"
    assert len(deltas) == 2


def openai(*chunks: Any) -> Answer:
    return sends(fake_openai.events(*chunks))


def anthropic(*events: Any) -> Answer:
    return sends(fake_anthropic.events(*events))


COUNTED: Mapping[str, tuple[Wire, Answer]] = {
    "openai, no choice": (OPENAI, sends_json({"choices": [], "usage": fake_openai.USAGE})),
    "openai, cut": (
        OPENAI,
        sends(fake_openai.events(chunk(choices=[], usage=fake_openai.USAGE), done=False), cut=True),
    ),
    "openai, a call that cannot be read": (
        OPENAI,
        openai(
            chunk(delta={"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{"}}]}),
            chunk(finish="tool_calls"),
            chunk(choices=[], usage=fake_openai.USAGE),
        ),
    ),
    "anthropic, a call that cannot be read": (
        ANTHROPIC,
        anthropic(
            start(),
            block(type="tool_use", id="a", name="f", input={}),
            delta(type="input_json_delta", partial_json="{"),
            ends(),
            *stops("tool_use"),
        ),
    ),
}


@pytest.mark.parametrize(("wire", "answer"), COUNTED.values(), ids=COUNTED.keys())
async def test_r06_what_a_server_has_counted_is_told_with_the_failure(wire: Wire, answer: Answer) -> None:
    with pytest.raises(UpstreamError) as raised:
        await ask(wire, answer)
    assert raised.value.usage is not None
    assert not raised.value.usage.estimated
    assert raised.value.usage.output_tokens > 0


WHOLE = start(content=[{"type": "text", "text": "all"}], stop_reason="end_turn", usage=fake_anthropic.USAGE | SPENT)
ODD: Mapping[str, tuple[Wire, Answer, str, str]] = {
    "no [DONE]": (OPENAI, sends(OPENAI.greeting.removesuffix(b"data: [DONE]\n\n")), "Hello, world", "stop"),
    "no finish reason": (OPENAI, openai(*fake_openai.GREETING[:4]), "Hello, world", "unknown"),
    "a finish reason of its own": (OPENAI, openai(chunk("a"), chunk(finish="overloaded")), "a", "unknown"),
    "the connection breaks after the end": (OPENAI, sends(OPENAI.whole, cut=True), "Hello, world", "stop"),
    "the usage never comes": (OPENAI, drips(OPENAI.whole), "Hello, world", "stop"),
    "a whole completion": (
        OPENAI,
        sends_json(chunk(choices=[{"message": {"content": "all"}, "finish_reason": "stop"}])),
        "all",
        "stop",
    ),
    "empty choices between": (
        OPENAI,
        openai(chunk(choices=[]), chunk("a"), chunk(choices=None), chunk(finish="stop")),
        "a",
        "stop",
    ),
    "no text in any chunk": (OPENAI, openai(chunk(finish="stop")), "", "stop"),
    "a second choice": (
        OPENAI,
        openai(chunk("a"), chunk(choices=[{"index": 1, "delta": {"content": "b"}}])),
        "a",
        "unknown",
    ),
    "choices and indexes that are none": (
        OPENAI,
        openai(
            chunk(choices=[7, "a", None, {"index": [0], "delta": {"content": "b"}}]),
            chunk(delta={"content": "a", "tool_calls": [7, None]}),
            chunk(finish="stop"),
        ),
        "a",
        "stop",
    ),
    "a refusal": (
        OPENAI,
        openai(chunk(delta={"refusal": "I will not"}), chunk(finish="content_filter")),
        "I will not",
        "content_filter",
    ),
    "a lone surrogate in a chunk": (
        OPENAI,
        sends(b'data: {"choices": [{"delta": {"content": "a\\ud800b"}}]}\n\ndata: [DONE]\n\n'),
        "a\ufffdb",
        "unknown",
    ),
    "pings and event names": (OPENAI, sends(b": ping\r\n\r\nevent: x\r\n" + OPENAI.greeting), "Hello, world", "stop"),
    "hidden reasoning first": (
        OPENAI,
        openai(chunk(delta={"reasoning_content": "hm"}), chunk("a"), chunk(finish="stop")),
        "a",
        "stop",
    ),
    "no end of the message": (ANTHROPIC, sends(ANTHROPIC.whole), "Hello, world", "stop"),
    "no reason to stop": (
        ANTHROPIC,
        anthropic(*fake_anthropic.GREETING[:-2], fake_anthropic.GREETING[-1]),
        "Hello, world",
        "unknown",
    ),
    "the connection breaks after the message": (ANTHROPIC, sends(ANTHROPIC.whole, cut=True), "Hello, world", "stop"),
    "the end of the message never comes": (ANTHROPIC, drips(ANTHROPIC.whole), "Hello, world", "stop"),
    "more after the end": (ANTHROPIC, sends(ANTHROPIC.greeting + ANTHROPIC.more), "Hello, world", "stop"),
    "no text in any block": (ANTHROPIC, anthropic(start(), *stops()), "", "stop"),
    "hidden thought first": (
        ANTHROPIC,
        anthropic(
            start(),
            block(type="thinking", thinking="", signature=""),
            delta(type="thinking_delta", thinking="hm"),
            delta(type="signature_delta", signature="EqQB"),
            ends(),
            block(1),
            delta("a", 1),
            *stops(),
        ),
        "a",
        "stop",
    ),
    "two texts": (ANTHROPIC, anthropic(start(), block(), delta("a"), block(1), delta("b", 1), *stops()), "ab", "stop"),
    "a text in its block's beginning": (
        ANTHROPIC,
        anthropic(start(), block(type="text", text="a"), *stops()),
        "a",
        "stop",
    ),
    "events and deltas of a later version": (
        ANTHROPIC,
        anthropic(start(), {"type": "weather"}, block(type="new"), delta(type="new", x=1), delta("a"), *stops()),
        "a",
        "stop",
    ),
    "indexes that are none": (
        ANTHROPIC,
        anthropic(start(), block() | {"index": [0]}, delta("a") | {"index": None}, *stops()),
        "a",
        "stop",
    ),
    "a whole message": (ANTHROPIC, sends_json(WHOLE["message"]), "all", "stop"),
    "a lone surrogate in a delta": (
        ANTHROPIC,
        sends(
            fake_anthropic.events(start()),
            b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\\ud800b"}}\n\n',
            fake_anthropic.events(*stops()),
        ),
        "a\ufffdb",
        "stop",
    ),
}


@pytest.mark.parametrize(("wire", "answer", "text", "finish"), ODD.values(), ids=ODD.keys())
async def test_u07_u08_an_odd_but_whole_answer_is_taken(wire: Wire, answer: Answer, text: str, finish: str) -> None:
    completion = await last(wire, answer)
    assert (completion.text, completion.finish_reason) == (text, finish)


@on_both_wires
async def test_u07_an_answer_may_be_split_anywhere(wire: Wire) -> None:
    odd = b"\xef\xbb\xbf: hi\r\n" + wire.greeting.replace(b"\n", b"\r\n")
    assert (await last(wire, sends(*[bytes([byte]) for byte in odd]))).text == "Hello, world"


# Prompt tokens and completion tokens of OpenAI's wire; the start's usage and the end's of Anthropic's.
BAD_USAGE: list[Any] = [
    None, {}, [], "19", {"prompt_tokens": 19}, {"prompt_tokens": "19", "completion_tokens": "3"},
    {"prompt_tokens": -1, "completion_tokens": 3}, {"prompt_tokens": 19, "completion_tokens": 1e308},
    {"prompt_tokens": 19.5, "completion_tokens": 3}, {"prompt_tokens": True, "completion_tokens": 3},
    {"prompt_tokens": None, "completion_tokens": None}, {"prompt_tokens": 19, "completion_tokens": 0},
]  # fmt: skip
BAD_START: list[Any] = [
    None, {}, [], "19", {"output_tokens": 1}, {"input_tokens": "11"}, {"input_tokens": -1}, {"input_tokens": 1e308},
    {"input_tokens": 11.5}, {"input_tokens": True}, {"input_tokens": None},
]  # fmt: skip
BAD_END: list[Any] = [
    None, {}, [], "7", {"output_tokens": "7"}, {"output_tokens": -1}, {"output_tokens": 1e308}, {"output_tokens": 7.5},
    {"output_tokens": True}, {"output_tokens": 0}, {"output_tokens": 7, "input_tokens": -11},
]  # fmt: skip


def told(first: Any, final: Any) -> Answer:
    return anthropic(start(first), *fake_anthropic.GREETING[1:-2], *stops(usage=final))


LIES = [
    *((OPENAI, openai(*fake_openai.GREETING[:5], chunk(choices=[], usage=usage))) for usage in BAD_USAGE),
    *((ANTHROPIC, told(first, SPENT)) for first in BAD_START),
    *((ANTHROPIC, told(fake_anthropic.USAGE, final)) for final in BAD_END),
]


@pytest.mark.parametrize(("wire", "answer"), LIES)
async def test_r06_u10_usage_that_cannot_be_true_is_counted_by_us_and_marked(wire: Wire, answer: Answer) -> None:
    usage = (await last(wire, answer)).usage
    assert usage.estimated
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0


NO_NUMBER = [
    (OPENAI, b'data: {"choices": [], "usage": {"prompt_tokens": %b, "completion_tokens": 3}}\n\n'),
    (
        ANTHROPIC,
        b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": %b}}\n\n',
    ),
]


@pytest.mark.parametrize(("wire", "garbage"), NO_NUMBER, ids=["openai", "anthropic"])
@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_r06_usage_that_is_no_number_is_counted_by_us_and_marked(
    wire: Wire, garbage: bytes, number: bytes
) -> None:
    said = OPENAI.whole if wire is OPENAI else fake_anthropic.events(*fake_anthropic.GREETING[:-2])
    assert (await last(wire, sends(said, garbage % number))).usage.estimated


@on_both_wires
async def test_leaving_a_stream_closes_the_upstream(wire: Wire) -> None:
    async with wire.talks(drips(wire.half)) as (fake, provider):
        stream = provider.stream(ASK)
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(fake.gone.wait(), 5)


@on_both_wires
@pytest.mark.parametrize("said", [None, "", "half"], ids=["before the head", "after the head", "in half an answer"])
async def test_cancelling_closes_the_upstream(wire: Wire, said: str | None) -> None:
    answer = never if said is None else drips(wire.half) if said else drips()
    async with wire.talks(answer) as (fake, provider):

        async def hear() -> None:
            async for _ in provider.stream(ASK):
                pass

        task = asyncio.create_task(hear())
        await fake.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(fake.gone.wait(), 5)


@on_both_wires
async def test_closing_ends_the_streams_in_flight(wire: Wire) -> None:
    async with wire.talks(drips(wire.half)) as (_, provider):
        stream = provider.stream(ASK)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await provider.close()
        with pytest.raises(UpstreamError):
            await asyncio.wait_for(waiting, 5)


@on_both_wires
async def test_pings_do_not_keep_a_silent_answer_alive(wire: Wire) -> None:
    with pytest.raises(UpstreamError, match="next token"):
        await ask(wire, drips(wire.half, then=wire.ping))


@on_both_wires
async def test_calls_one_after_the_other_share_a_connection(wire: Wire) -> None:
    async with wire.talks(sends(wire.greeting)) as (fake, provider):
        for _ in range(3):
            assert [item async for item in provider.stream(ASK)][-1].text == "Hello, world"
        assert len(fake.connections) == 1


@on_both_wires
async def test_proxy_variables_are_not_for_models(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert (await last(wire, sends(wire.greeting))).text == "Hello, world"
