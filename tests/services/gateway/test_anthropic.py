"""Anthropic's wire against an upstream that answers well or oddly."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from anthropic import AsyncAnthropic

from app.config.schema import ModelConfig, ProviderConfig
from app.services.gateway.anthropic import AnthropicProvider
from app.services.gateway.provider import Timeouts
from graphs.errors import Invalid, UpstreamError
from graphs.types import Completion, Message, ModelInfo, ModelRequest, ToolProposal, ToolSpec, Usage
from tests.fake_anthropic import (
    GREETING,
    PING,
    SPENT,
    USAGE,
    block,
    calls,
    delta,
    ends,
    events,
    fake_anthropic,
    start,
    stops,
)
from tests.fake_openai import KEY, Answer, drips, never, sends, sends_json

ASK = ModelRequest(messages=(Message("user", "Say hello"),))
BRISK = Timeouts(between_tokens_s=0.5)  # only what waits for silence meets it
OPEN = {"type": "object", "properties": {"days": {"type": "integer", "minimum": 1}}}
HALF = GREETING[:5]
INFO = ModelInfo("claude-test", "", "anthropic", 8_192, 512, native_tools=True)


async def ask(answer: Answer, request: ModelRequest = ASK) -> list[Any]:
    async with fake_anthropic(answer) as fake:
        provider = fake.provider(BRISK)
        try:
            return [item async for item in provider.stream(request)]
        finally:
            await provider.close()


async def last(answer: Answer, request: ModelRequest = ASK) -> Completion:
    completion = (await ask(answer, request))[-1]
    assert isinstance(completion, Completion)
    return completion


async def test_an_answer_comes_as_deltas_and_one_completion() -> None:
    *deltas, completion = await ask(sends(events(*GREETING)))
    assert "".join(delta.text for delta in deltas) == "Hello, world"
    assert completion.text == "Hello, world"
    assert completion.finish_reason == "stop"
    assert (completion.model, completion.model_version) == ("claude-test", "claude-test-20260101")


async def test_what_the_fake_sends_is_what_the_vendors_own_client_reads() -> None:
    turn = (*GREETING[:7], *calls("calculator", '{"expression":', ' "3+4"}', index=1), *stops("tool_use"))
    async with fake_anthropic(sends(events(*turn))) as fake:
        client = AsyncAnthropic(base_url=fake.url, api_key=KEY)
        async with client.messages.stream(
            model="claude-test", max_tokens=9, messages=[{"role": "user", "content": "Say hello"}]
        ) as stream:
            message = await stream.get_final_message()
        await client.close()
    assert [part.type for part in message.content] == ["text", "tool_use"]
    assert message.usage.output_tokens == 7
    ours = await last(sends(events(*turn)))
    assert ours.tool_calls == (ToolProposal("toolu_01T1x1fJ34qAmk2tNTrN7Up6", "calculator", {"expression": "3+4"}),)
    assert (ours.text, ours.finish_reason) == ("Hello, world", "tool_calls")


async def test_input_tokens_include_what_came_from_the_vendors_cache_and_went_into_it() -> None:
    told = await last(sends(events(*GREETING)))
    assert told.usage == Usage(19, 7, cached_input_tokens=3, cache_write_tokens=5)


CUMULATIVE = {"input_tokens": 20, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 9}


async def test_a_later_count_replaces_an_earlier_one() -> None:
    told = await last(sends(events(*GREETING[:-2], *stops(usage=CUMULATIVE))))
    assert told.usage == Usage(20, 9)


FINISHES = [
    ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"),
    ("model_context_window_exceeded", "length"), ("pause_turn", "unknown"), ("a new one", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), FINISHES)
async def test_u08_every_reason_to_stop_has_its_meaning(theirs: str, ours: str) -> None:
    assert (await last(sends(events(*GREETING[:-2], *stops(theirs))))).finish_reason == ours


WHOLE: dict[str, Any] = start(
    content=[
        {"type": "text", "text": "all"},
        {"type": "tool_use", "id": "t1", "name": "now", "input": {"zone": "UTC"}},
    ],
    stop_reason="tool_use",
    usage=USAGE | SPENT,
)["message"]
GOOD: Mapping[str, tuple[Answer, str, str]] = {
    "no end of the message": (sends(events(*GREETING[:-1])), "Hello, world", "stop"),
    "no reason to stop": (sends(events(*GREETING[:-2], GREETING[-1])), "Hello, world", "unknown"),
    "the connection breaks after the end": (sends(events(*GREETING[:-1]), cut=True), "Hello, world", "stop"),
    "the end of the message never comes": (drips(events(*GREETING[:-1])), "Hello, world", "stop"),
    "more after the end": (sends(events(*GREETING, delta("!"))), "Hello, world", "stop"),
    "no text at all": (sends(events(start(), *stops())), "", "stop"),
    "hidden thought first": (
        sends(
            events(
                start(),
                block(type="thinking", thinking="", signature=""),
                delta(type="thinking_delta", thinking="hm"),
                delta(type="signature_delta", signature="EqQB"),
                ends(),
                block(1),
                delta("a", 1),
                *stops(),
            )
        ),
        "a",
        "stop",
    ),
    "two texts": (sends(events(start(), block(), delta("a"), block(1), delta("b", 1), *stops())), "ab", "stop"),
    "a text in its block's beginning": (sends(events(start(), block(type="text", text="a"), *stops())), "a", "stop"),
    "events and deltas of a later version": (
        sends(events(start(), {"type": "weather"}, block(type="new"), delta(type="new", x=1), delta("a"), *stops())),
        "a",
        "stop",
    ),
    "indexes that are none": (
        sends(events(start(), block() | {"index": [0]}, delta("a") | {"index": None}, *stops())),
        "a",
        "stop",
    ),
    "a whole message": (sends_json(WHOLE), "all", "tool_calls"),
    "a lone surrogate": (
        sends(
            events(start()),
            b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\\ud800b"}}\n\n',
            events(*stops()),
        ),
        "a\ufffdb",
        "stop",
    ),
    "split anywhere, CRLF, comments, a byte order mark": (
        sends(*[bytes([byte]) for byte in b"\xef\xbb\xbf: hi\r\n" + events(*GREETING).replace(b"\n", b"\r\n")]),
        "Hello, world",
        "stop",
    ),
}


@pytest.mark.parametrize(("answer", "text", "finish"), GOOD.values(), ids=GOOD.keys())
async def test_u07_u08_an_odd_but_whole_answer_is_taken(answer: Answer, text: str, finish: str) -> None:
    completion = await last(answer)
    assert (completion.text, completion.finish_reason) == (text, finish)


BAD_START: list[Any] = [
    None, {}, [], "19", {"output_tokens": 1}, {"input_tokens": "11"}, {"input_tokens": -1}, {"input_tokens": 1e308},
    {"input_tokens": 11.5}, {"input_tokens": True}, {"input_tokens": None},
]  # fmt: skip
BAD_END: list[Any] = [
    None, {}, [], "7", {"output_tokens": "7"}, {"output_tokens": -1}, {"output_tokens": 1e308}, {"output_tokens": 7.5},
    {"output_tokens": True}, {"output_tokens": 0}, {"output_tokens": 7, "input_tokens": -11},
]  # fmt: skip


@pytest.mark.parametrize(("first", "final"), [*((bad, SPENT) for bad in BAD_START), *((USAGE, bad) for bad in BAD_END)])
async def test_r06_u10_usage_that_cannot_be_true_is_counted_by_us_and_marked(first: Any, final: Any) -> None:
    told = await last(sends(events(start(first), *GREETING[1:-2], *stops(usage=final))))
    assert told.usage.estimated
    assert told.usage.input_tokens > 0
    assert told.usage.output_tokens > 0


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity"])
async def test_r06_usage_that_is_no_number_is_counted_by_us_and_marked(number: bytes) -> None:
    garbage = b'data: {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": '
    told = await last(sends(events(*GREETING[:-2]), garbage + number + b"}}\n\n"))
    assert told.usage.estimated


@pytest.mark.parametrize("cached", [-1, 1e308, "3", None, 2.5])
async def test_r06_a_cache_count_that_cannot_be_one_counts_nothing(cached: Any) -> None:
    told = await last(sends(events(start(USAGE | {"cache_read_input_tokens": cached}), *GREETING[1:])))
    assert told.usage == Usage(16, 7, cache_write_tokens=5)


async def test_u08_calls_of_one_index_are_two_and_a_call_alone_is_an_answer() -> None:
    both = (*calls("first", '{"n": 1}', call_id="a"), *calls("second", call_id="b"))
    told = await last(sends(events(start(), *both, *stops("tool_use"))))
    assert told.tool_calls == (ToolProposal("a", "first", {"n": 1}), ToolProposal("b", "second", {}))
    assert (told.text, told.finish_reason) == ("", "tool_calls")


async def test_an_answer_to_a_schema_that_the_api_cannot_enforce_comes_through_a_tool_and_streams_as_text() -> None:
    turn = (start(), block(), delta("Sure: "), ends(), *calls("give_answer", '{"days"', ": 90}", index=1))
    request = ModelRequest(ASK.messages, response_schema=OPEN)
    *deltas, completion = await ask(sends(events(*turn, *stops("tool_use"))), request)
    assert "".join(delta.text for delta in deltas) == '{"days": 90}'
    assert (completion.text, completion.finish_reason) == ('{"days": 90}', "stop")
    assert completion.tool_calls == ()


async def test_an_answer_in_another_form_than_was_asked_for_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="form"):
        await ask(sends(events(*GREETING)), ModelRequest(ASK.messages, response_schema=OPEN))


@pytest.mark.parametrize("answer", [never, drips(), drips(events(*HALF))], ids=["no head", "no event", "half"])
async def test_cancelling_closes_the_upstream(answer: Answer) -> None:
    async with fake_anthropic(answer) as fake:
        provider = fake.provider()
        task = asyncio.create_task(provider_hears(provider))
        await fake.asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(fake.gone.wait(), 5)
        await provider.close()


async def provider_hears(provider: AnthropicProvider) -> None:
    async for _ in provider.stream(ASK):
        pass


async def test_pings_do_not_keep_a_silent_answer_alive() -> None:
    with pytest.raises(UpstreamError, match="next token"):
        await ask(drips(events(*HALF), then=events(PING)))


async def test_calls_one_after_the_other_share_a_connection_and_carry_key_and_version() -> None:
    async with fake_anthropic(sends(events(*GREETING))) as fake:
        provider = fake.provider()
        for _ in range(3):
            assert [item async for item in provider.stream(ASK)][-1].text == "Hello, world"
        await provider.close()
        assert len(fake.connections) == 1
        assert fake.headers[0]["x-api-key"] == KEY
        assert fake.headers[0]["anthropic-version"] == "2023-06-01"


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
async def test_a_base_url_may_end_in_its_version(path: str) -> None:
    async with fake_anthropic(sends(events(*GREETING))) as fake:
        place = ProviderConfig(kind="anthropic", base_url=fake.url + path)
        provider = AnthropicProvider.configured(INFO, place, ModelConfig(provider="a", model="claude-x"), KEY)
        assert [item async for item in provider.stream(ASK)][-1].text == "Hello, world"
        await provider.close()
        assert fake.requests[0]["model"] == "claude-x"


def test_an_argument_that_it_does_not_have_is_refused_at_start() -> None:
    place = ProviderConfig(kind="anthropic", arguments={"cache_promts": False})
    with pytest.raises(Invalid, match="cache_promts"):
        AnthropicProvider.configured(INFO, place, ModelConfig(provider="a", model="claude-x"), KEY)


async def test_the_vendors_prompt_cache_can_be_switched_off() -> None:
    async with fake_anthropic(sends(events(*GREETING))) as fake:
        request = ModelRequest((Message("system", "Be brief."), *ASK.messages), tools=(ToolSpec("now", "", {}),))
        for arguments in ({}, {"cache_prompts": False}):
            place = ProviderConfig(kind="anthropic", base_url=fake.url, arguments=arguments)
            provider = AnthropicProvider.configured(INFO, place, ModelConfig(provider="a", model="claude-x"), KEY)
            assert [item async for item in provider.stream(request)]
            await provider.close()
    assert ["cache_control" in str(body) for body in fake.requests] == [True, False]
