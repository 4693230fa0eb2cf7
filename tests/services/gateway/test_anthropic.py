"""What is Anthropic's wire's own: its client, its cache, its counts, answers through a tool, what a file configures."""

from typing import Any

import pytest
from anthropic import AsyncAnthropic

from app.config.schema import ModelConfig, ProviderConfig
from app.services.gateway.anthropic import AnthropicProvider
from graphs.errors import Invalid, UpstreamError
from graphs.types import Message, ModelInfo, ModelRequest, ToolProposal, ToolSpec, Usage
from tests.fake_anthropic import (
    GREETING,
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
from tests.fake_openai import KEY, sends, sends_json
from tests.services.gateway.test_wires import ask, last
from tests.services.gateway.wires import ANTHROPIC, ASK

OPEN = {"type": "object", "properties": {"days": {"type": "integer", "minimum": 1}}}
INFO = ModelInfo("claude-test", "", "anthropic", 8_192, 512, native_tools=True)


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
    ours = await last(ANTHROPIC, sends(events(*turn)))
    assert ours.tool_calls == (ToolProposal("toolu_01T1x1fJ34qAmk2tNTrN7Up6", "calculator", {"expression": "3+4"}),)
    assert (ours.text, ours.finish_reason) == ("Hello, world", "tool_calls")


async def test_input_tokens_include_what_came_from_the_vendors_cache_and_went_into_it() -> None:
    told = await last(ANTHROPIC, sends(events(*GREETING)))
    assert told.usage == Usage(19, 7, cached_input_tokens=3, cache_write_tokens=5)


CUMULATIVE = {"input_tokens": 20, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "output_tokens": 9}


async def test_a_later_count_replaces_an_earlier_one() -> None:
    told = await last(ANTHROPIC, sends(events(*GREETING[:-2], *stops(usage=CUMULATIVE))))
    assert told.usage == Usage(20, 9)


@pytest.mark.parametrize("cached", [-1, 1e308, "3", None, 2.5])
async def test_r06_a_cache_count_that_cannot_be_one_counts_nothing(cached: Any) -> None:
    told = await last(ANTHROPIC, sends(events(start(USAGE | {"cache_read_input_tokens": cached}), *GREETING[1:])))
    assert told.usage == Usage(16, 7, cache_write_tokens=5)


FINISHES = [
    ("end_turn", "stop"), ("stop_sequence", "stop"), ("max_tokens", "length"), ("refusal", "content_filter"),
    ("model_context_window_exceeded", "length"), ("pause_turn", "unknown"), ("a new one", "unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), FINISHES)
async def test_u08_every_reason_to_stop_has_its_meaning(theirs: str, ours: str) -> None:
    assert (await last(ANTHROPIC, sends(events(*GREETING[:-2], *stops(theirs))))).finish_reason == ours


async def test_u08_a_whole_message_may_call_a_tool_beside_its_text() -> None:
    content = [
        {"type": "text", "text": "all"},
        {"type": "tool_use", "id": "t1", "name": "now", "input": {"zone": "UTC"}},
    ]
    message = start(content=content, stop_reason="tool_use", usage=USAGE | SPENT)["message"]
    told = await last(ANTHROPIC, sends_json(message))
    assert (told.text, told.finish_reason) == ("all", "tool_calls")
    assert told.tool_calls == (ToolProposal("t1", "now", {"zone": "UTC"}),)


async def test_u08_calls_of_one_index_are_two_and_a_call_alone_is_an_answer() -> None:
    both = (*calls("first", '{"n": 1}', call_id="a"), *calls("second", call_id="b"))
    told = await last(ANTHROPIC, sends(events(start(), *both, *stops("tool_use"))))
    assert told.tool_calls == (ToolProposal("a", "first", {"n": 1}), ToolProposal("b", "second", {}))
    assert (told.text, told.finish_reason) == ("", "tool_calls")


async def test_an_answer_to_a_schema_that_the_api_cannot_enforce_comes_through_a_tool_and_streams_as_text() -> None:
    turn = (start(), block(), delta("Sure: "), ends(), *calls("give_answer", '{"days"', ": 90}", index=1))
    request = ModelRequest(ASK.messages, response_schema=OPEN)
    *deltas, completion = await ask(ANTHROPIC, sends(events(*turn, *stops("tool_use"))), request)
    assert "".join(delta.text for delta in deltas) == '{"days": 90}'
    assert (completion.text, completion.finish_reason) == ('{"days": 90}', "stop")
    assert completion.tool_calls == ()


async def test_an_answer_in_another_form_than_was_asked_for_is_an_error() -> None:
    with pytest.raises(UpstreamError, match="form"):
        await ask(ANTHROPIC, sends(events(*GREETING)), ModelRequest(ASK.messages, response_schema=OPEN))


async def test_a_call_carries_key_and_version() -> None:
    async with ANTHROPIC.talks(sends(events(*GREETING))) as (fake, provider):
        assert [item async for item in provider.stream(ASK)]
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
