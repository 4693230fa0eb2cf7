"""The provider against an upstream that answers well or oddly, and its connections."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.provider import Timeouts
from app.services.gateway.server import ModelServer
from graphs.errors import Invalid, UpstreamError
from graphs.types import Completion, Delta, Message, ModelRequest
from tests.fake_openai import (
    GREETING,
    USAGE,
    Answer,
    FakeOpenAi,
    chunk,
    drips,
    event,
    events,
    fake_openai,
    never,
    sends,
    sends_json,
)

ASK = ModelRequest(messages=(Message("user", "Say hello"),))
BRISK = Timeouts(between_tokens_s=0.5)  # only what waits for silence meets it
HALF = GREETING[:3]


async def ask(answer: Answer) -> list[Any]:
    async with fake_openai(answer) as fake:
        provider = fake.provider(BRISK)
        try:
            return [item async for item in provider.stream(ASK)]
        finally:
            await provider.close()


async def last(answer: Answer) -> Completion:
    completion = (await ask(answer))[-1]
    assert isinstance(completion, Completion)
    return completion


async def test_an_answer_comes_as_deltas_and_one_completion() -> None:
    *deltas, completion = await ask(sends(events(*GREETING)))
    assert "".join(delta.text for delta in deltas) == "Hello, world"
    assert completion.text == "Hello, world"
    assert (completion.usage.input_tokens, completion.usage.output_tokens) == (19, 3)
    assert not completion.usage.estimated
    assert completion.finish_reason == "stop"
    assert (completion.model, completion.model_version) == ("gpt-test", "gpt-test-2026-01-01")


async def test_tokens_pass_as_they_come_and_those_that_come_together_as_one() -> None:
    first, *rest = (event(said) for said in GREETING[1:])
    *deltas, _ = await ask(sends(first, b"".join(rest), pause_s=0.1))
    assert deltas == [Delta("Hello"), Delta(", world")]


SAID = GREETING[:5]
GOOD: Mapping[str, tuple[Answer, str, str]] = {
    "no [DONE]": (sends(events(*GREETING, done=False)), "Hello, world", "stop"),
    "no finish reason": (sends(events(*GREETING[:4])), "Hello, world", "unknown"),
    "a finish reason of its own": (sends(events(chunk("a"), chunk(finish="overloaded"))), "a", "unknown"),
    "the connection breaks after the end": (sends(events(*SAID, done=False), cut=True), "Hello, world", "stop"),
    "the usage never comes": (drips(events(*SAID, done=False)), "Hello, world", "stop"),
    "a whole message": (
        sends_json(chunk(choices=[{"message": {"content": "all"}, "finish_reason": "stop"}])),
        "all",
        "stop",
    ),
    "empty choices between": (
        sends(events(chunk(choices=[]), chunk("a"), chunk(choices=None), chunk(finish="stop"))),
        "a",
        "stop",
    ),
    "no text at all": (sends(events(chunk(finish="stop"))), "", "stop"),
    "a second choice": (
        sends(events(chunk("a"), chunk(choices=[{"index": 1, "delta": {"content": "b"}}]))),
        "a",
        "unknown",
    ),
    "choices and indexes that are none": (
        sends(
            events(
                chunk(choices=[7, "a", None, {"index": [0], "delta": {"content": "b"}}]),
                chunk(delta={"content": "a", "tool_calls": [7, None]}),
                chunk(finish="stop"),
            )
        ),
        "a",
        "stop",
    ),
    "a refusal": (
        sends(events(chunk(delta={"refusal": "I will not"}), chunk(finish="content_filter"))),
        "I will not",
        "content_filter",
    ),
    "a lone surrogate": (
        sends(b'data: {"choices": [{"delta": {"content": "a\\ud800b"}}]}\n\ndata: [DONE]\n\n'),
        "a\ufffdb",
        "unknown",
    ),
    "pings and event names": (sends(b": ping\r\n\r\nevent: x\r\n" + events(*GREETING)), "Hello, world", "stop"),
    "hidden reasoning first": (
        sends(events(chunk(delta={"reasoning_content": "hm"}), chunk("a"), chunk(finish="stop"))),
        "a",
        "stop",
    ),
}


@pytest.mark.parametrize(("answer", "text", "finish"), GOOD.values(), ids=GOOD.keys())
async def test_u07_u08_an_odd_but_whole_answer_is_taken(answer: Answer, text: str, finish: str) -> None:
    completion = await last(answer)
    assert (completion.text, completion.finish_reason) == (text, finish)


BAD_USAGE: list[Any] = [
    None, {}, [], "19", {"prompt_tokens": 19}, {"prompt_tokens": "19", "completion_tokens": "3"},
    {"prompt_tokens": -1, "completion_tokens": 3}, {"prompt_tokens": 19, "completion_tokens": 1e308},
    {"prompt_tokens": 19.5, "completion_tokens": 3}, {"prompt_tokens": True, "completion_tokens": 3},
    {"prompt_tokens": None, "completion_tokens": None}, {"prompt_tokens": 19, "completion_tokens": 0},
]  # fmt: skip


@pytest.mark.parametrize("usage", BAD_USAGE, ids=repr)
async def test_r06_u10_usage_that_cannot_be_true_is_counted_by_us_and_marked(usage: Any) -> None:
    told = await last(sends(events(*GREETING[:5], chunk(choices=[], usage=usage))))
    assert told.usage.estimated
    assert told.usage.input_tokens > 0
    assert told.usage.output_tokens > 0


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_r06_usage_that_is_no_number_is_counted_by_us_and_marked(number: bytes) -> None:
    garbage = b'data: {"choices": [], "usage": {"prompt_tokens": ' + number + b', "completion_tokens": 3}}\n\n'
    assert (await last(sends(events(*GREETING[:5], done=False), garbage))).usage.estimated


async def test_r06_usage_told_twice_counts_once() -> None:
    growing = [chunk(choices=[], usage=USAGE | {"completion_tokens": count}) for count in (1.0, 3.0)]
    told = await last(sends(events(*GREETING[:5], *growing)))
    assert (told.usage.input_tokens, told.usage.output_tokens, told.usage.estimated) == (19, 3, False)


async def test_tool_calls_are_put_together_from_their_pieces() -> None:
    def piece(index: int, **function: str) -> dict[str, Any]:
        named = {"id": f"call_{function['name']}"} if "name" in function else {}
        return chunk(delta={"tool_calls": [{"index": index, "type": "function", "function": function} | named]})

    told = await last(
        sends(
            events(
                piece(0, name="calculator", arguments=""),
                piece(0, arguments='{"expression":'),
                piece(1, name="current_time", arguments=""),
                piece(0, arguments=' "3+4"}'),
                chunk(finish="tool_calls"),
                chunk(choices=[], usage=USAGE),
            )
        )
    )
    assert [(call.call_id, call.name, dict(call.arguments)) for call in told.tool_calls] == [
        ("call_calculator", "calculator", {"expression": "3+4"}),
        ("call_current_time", "current_time", {}),
    ]
    assert told.finish_reason == "tool_calls"


async def test_u08_calls_that_share_an_index_but_not_an_id_are_two() -> None:
    both = [
        chunk(delta={"tool_calls": [{"index": 0, "id": name, "function": {"name": name, "arguments": {"n": 1}}}]})
        for name in ("first", "second")
    ]
    told = await last(sends(events(*both, chunk(finish="stop"))))
    assert [call.name for call in told.tool_calls] == ["first", "second"]
    assert told.finish_reason == "tool_calls"


async def test_leaving_a_stream_closes_the_upstream() -> None:
    async with fake_openai(drips(events(*HALF, done=False))) as fake:
        provider = fake.provider()
        stream = provider.stream(ASK)
        await anext(stream)
        await stream.aclose()
        await asyncio.wait_for(fake.gone.wait(), 5)
        await provider.close()


@pytest.mark.parametrize("answer", [never, drips()], ids=["before the head", "after the head"])
async def test_cancelling_before_the_first_token_closes_the_upstream(answer: Answer) -> None:
    async with fake_openai(answer) as fake:
        provider = fake.provider()
        task = asyncio.create_task(anext(provider.stream(ASK)))
        await fake.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(fake.gone.wait(), 5)
        await provider.close()


async def test_closing_ends_the_streams_in_flight() -> None:
    async with fake_openai(drips(events(*HALF, done=False))) as fake:
        provider = fake.provider()
        stream = provider.stream(ASK)
        await anext(stream)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        await provider.close()
        with pytest.raises(UpstreamError):
            await asyncio.wait_for(waiting, 5)


async def test_calls_one_after_the_other_share_a_connection() -> None:
    async with fake_openai(sends(events(*GREETING))) as fake:
        provider = fake.provider()
        for _ in range(3):
            assert [item async for item in provider.stream(ASK)][-1].text == "Hello, world"
        await provider.close()
        assert len(fake.connections) == 1


async def test_proxy_variables_are_not_for_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert (await last(sends(events(*GREETING)))).text == "Hello, world"


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "file:///etc/passwd", "http://", "ftp://host/v1"])
def test_a_base_url_must_be_one(url: str) -> None:
    info = FakeOpenAi(never, url="http://127.0.0.1").provider().info
    with pytest.raises(Invalid) as raised:
        OpenAiProvider(info, ModelServer(url, named="openai_base_url"))
    assert raised.value.field == "openai_base_url"
