"""Models whose providers do not speak OpenAI's wire answer on it all the same."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.v1.shapes import chat_body
from app.api.v1.translated import Until, translated
from app.config.schema import RouteConfig
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.provider import Timeouts, WireEnd, WireEvent
from app.services.gateway.routes import FREE, Target
from app.services.gateway.scripted import Line, Say, ScriptedProvider
from graphs.types import ToolProposal
from tests.fake_openai import GREETING, events, fake_openai, sends


def asks(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_a_text_comes_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="scripted", messages=asks("say Hello there"))
    assert whole.choices[0].message.content == "Hello there"
    assert whole.usage is not None
    assert whole.usage.completion_tokens > 0
    options: Any = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(model="scripted", messages=asks("say Hello there"), **options))
    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices) == "Hello there"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage


def test_a_tool_call_comes_whole_and_streamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="scripted", messages=asks("ticket please"))
    assert whole.choices[0].message.tool_calls is not None
    (call,) = whole.choices[0].message.tool_calls
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)["title"]) == ("create_ticket", "Printer")
    with client.chat.completions.stream(model="scripted", messages=asks("ticket please")) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls
    assert final.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_the_other_wires_reach_them_too(http: httpx.Client, path: str) -> None:
    body: dict[str, Any] = {"model": "scripted", "input": "say Hello"}
    if path == "/v1/messages":
        body = {"model": "scripted", "max_tokens": 50, "messages": asks("say Hello")}
    assert "Hello" in http.post(path, json=body).text


@pytest.mark.parametrize(
    ("given_", "field"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools.0"),
        ({"tool_choice": {"type": "any"}}, "tool_choice"),
        ({"temperature": 3}, "temperature"),
        ({"stop": 5}, "stop"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages.0.content"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_by_name(http: httpx.Client, given_: Any, field: str) -> None:
    answer = http.post("/v1/chat/completions", json={"model": "scripted", "messages": asks("say Hello")} | given_)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, field)


async def heard(line: Line, cap: int | None = None, **asked: Any) -> tuple[str, list[Any], ScriptedProvider]:
    """The text, the events and the provider of one answer."""
    provider = ScriptedProvider([line])
    body = chat_body({"messages": asks("x"), "stream": True} | asked, max_choices=8, max_output_tokens=100)
    target = Target("m", provider, FREE, Breaker(BreakerPolicy()))
    stream: AsyncGenerator[WireEvent | WireEnd, None] = translated(target, body, cap, RouteConfig(candidates=("m",)))
    items = [item async for item in stream]
    text = "".join(item.text for item in items if isinstance(item, WireEvent))
    return text, items, provider


async def test_an_answer_ends_before_its_stop_and_the_provider_is_closed() -> None:
    said = Say(pieces=("one two", " EN", "D three", " four"))
    text, items, provider = await heard(said, stop="END")
    assert text == "one two "
    assert provider.closed_early == 1
    assert items[-1] == WireEnd(None, "stop", "1")  # what it used is estimated
    text, items, provider = await heard(said, stop=["never", "END five"])
    assert text == "one two END three four"
    assert provider.closed_early == 0


async def test_the_limit_of_a_budget_holds() -> None:
    _, _, provider = await heard("x", cap=7, max_tokens=50)
    assert provider.requests[0].max_tokens == 7


async def test_tools_are_kept_from_a_model_that_must_not_use_them() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    _, _, provider = await heard("x", tools=tools, tool_choice="none")
    assert provider.requests[0].tools == ()
    _, _, provider = await heard("x", tools=tools, tool_choice={"type": "function", "function": {"name": "f"}})
    assert (provider.requests[0].tools[0].name, provider.requests[0].tool_choice) == ("f", "f")


async def test_calls_and_text_end_in_one_choice() -> None:
    call = ToolProposal("c1", "f", {"a": 1})
    _, items, _ = await heard(Say(pieces=("Let me see.",), tool_calls=(call,)))
    chunks = [item.data for item in items if isinstance(item, WireEvent)]
    assert chunks[-2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


STOPS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3)


@given(st.text("abc", max_size=30), STOPS, st.lists(st.integers(1, 5), max_size=30))
def test_however_a_text_is_cut_it_ends_at_the_first_stop(text: str, stops: list[str], sizes: list[int]) -> None:
    until, out, rest = Until(tuple(stops)), "", text
    for size in [*sizes, *[1] * len(text)]:
        if until.reached or not rest:
            break
        out += until.feed(rest[:size])
        rest = rest[size:]
    if not until.reached:
        out += until.close()
    ends = [place for stop in stops if (place := text.find(stop)) >= 0]
    whole = text[: min(ends)] if ends else text
    # A longer stop may begin before a shorter one ends, and be complete only after it: then it came second.
    assert out == whole or (until.reached and out.startswith(whole))


async def test_a_limit_goes_on_under_the_name_that_the_server_knows() -> None:
    async with fake_openai(sends(events(*GREETING))) as fake:
        provider = fake.provider(max_tokens_field="max_completion_tokens")
        body = {"messages": asks("x"), "max_tokens": 7}
        _ = [item async for item in provider.forward(body, stream=True, timeouts=Timeouts())]
        await provider.close()
    assert fake.requests[0]["max_completion_tokens"] == 7
    assert "max_tokens" not in fake.requests[0]
