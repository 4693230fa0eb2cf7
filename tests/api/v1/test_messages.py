"""Anthropic's Messages through the real `anthropic` client, unmodified, with our key in `x-api-key`."""

import json
from typing import Any

import anthropic
import httpx
import pytest
from pydantic import BaseModel

from tests.api.served import Served
from tests.api.v1.upstream import Upstream

WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}


def asks(text: str) -> Any:
    return [{"role": "user", "content": text}]


def test_a_message_is_answered_with_its_usage(claude: anthropic.Anthropic, lab: Upstream) -> None:
    told = claude.messages.create(
        model="big", max_tokens=50, system="Be brief.", messages=asks("say Hello there"), stop_sequences=["END"]
    )
    (block,) = told.content
    assert block.type == "text"
    assert block.text == "Hello there"
    assert told.stop_reason == "end_turn"
    assert told._request_id
    assert (told.usage.input_tokens, told.usage.cache_read_input_tokens, told.usage.output_tokens) == (15, 4, 7)
    assert lab.last["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (lab.last["max_tokens"], lab.last["stop"]) == (50, ["END"])


def test_a_stream_tells_the_events_in_the_order_of_the_wire(claude: anthropic.Anthropic) -> None:
    events = list(claude.messages.create(model="big", max_tokens=50, messages=asks("say Hello, world"), stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    with claude.messages.stream(model="big", max_tokens=50, messages=asks("say Hello, world")) as stream:
        assert "".join(stream.text_stream) == "Hello, world"
        final = stream.get_final_message()
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (15, 7)


def test_a_tool_is_used_and_its_result_taken(claude: anthropic.Anthropic, lab: Upstream) -> None:
    asked = asks('call weather {"city": "Oslo"}')
    told = claude.messages.create(
        model="big", max_tokens=50, messages=asked, tools=[WEATHER], tool_choice={"type": "any"}
    )
    (use,) = told.content
    assert use.type == "tool_use"
    assert (use.name, use.input) == ("weather", {"city": "Oslo"})
    assert told.stop_reason == "tool_use"
    assert lab.last["tools"][0]["function"]["parameters"] == WEATHER["input_schema"]
    assert lab.last["tool_choice"] == "required"

    result: Any = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "say Rain"}]}
    turns = [*asked, {"role": "assistant", "content": told.content}, {"role": "user", "content": [result]}]
    done = claude.messages.create(model="big", max_tokens=50, messages=turns, tools=[WEATHER])
    assert done.content[0].type == "text"
    assert done.content[0].text == "Rain"
    assert [turn["role"] for turn in lab.last["messages"]] == ["user", "assistant", "tool"]
    assert lab.last["messages"][2] == {"role": "tool", "tool_call_id": use.id, "content": "say Rain"}


def test_the_input_of_a_tool_is_streamed(claude: anthropic.Anthropic) -> None:
    asked = asks('call weather {"city": "Oslo"}')
    with claude.messages.stream(model="big", max_tokens=50, messages=asked, tools=[WEATHER]) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert "".join(pieces) == '{"city": "Oslo"}'
    assert len(pieces) > 1
    (use,) = final.content
    assert use.type == "tool_use"
    assert use.input == {"city": "Oslo"}


class Place(BaseModel):
    city: str


def test_a_structured_answer_is_parsed(claude: anthropic.Anthropic, lab: Upstream) -> None:
    told = claude.messages.parse(model="big", max_tokens=50, messages=asks('say {"city": "Oslo"}'), output_format=Place)
    assert told.parsed_output == Place(city="Oslo")
    assert lab.last["response_format"]["json_schema"]["schema"]["required"] == ["city"]


def test_images_and_earlier_thoughts(claude: anthropic.Anthropic, lab: Upstream) -> None:
    """An image goes on to the model; what another model thought stays behind."""
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    turns: Any = [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [{"type": "thinking", "thinking": "secret", "signature": "x"}, {"type": "text", "text": "Hi."}],
        },
        {"role": "user", "content": [{"type": "text", "text": "say Seen"}, image]},
    ]
    claude.messages.create(model="big", max_tokens=50, messages=turns)
    assert lab.last["messages"][1] == {"role": "assistant", "content": "Hi."}
    assert lab.last["messages"][2]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")


async def test_the_async_client_works_too(door: Served) -> None:
    async with (
        anthropic.AsyncAnthropic(base_url=door.url, api_key=door.keys["ann"]) as client,
        client.messages.stream(model="big", max_tokens=50, messages=asks("say Hello")) as stream,
    ):
        assert [text async for text in stream.text_stream] == ["Hello"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_graph_answers_by_its_name(http: httpx.Client, stream: bool) -> None:
    asked = {"model": "pilothouse/chat", "max_tokens": 50, "messages": asks("say Hello"), "stream": stream}
    answer = http.post("/v1/messages", json=asked)
    assert answer.status_code == 200
    assert "Hello" in answer.text
    assert '"requestId"' in answer.text


def test_models_are_listed_and_tokens_counted(claude: anthropic.Anthropic) -> None:
    assert "pilothouse/rag" in [model.id for model in claude.models.list()]
    counted = claude.messages.count_tokens(model="big", messages=asks("say Hello"), system="Be brief.")
    assert 5 <= counted.input_tokens <= 100


def fails(door: Served, kind: type[anthropic.APIStatusError], who: str = "ann", **asked: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "default", "max_tokens": 50, "messages": asks("say Hello")} | asked
    client = anthropic.Anthropic(base_url=door.url, api_key=door.keys[who], max_retries=0)
    with client, pytest.raises(kind) as caught:
        client.messages.create(**body)
    error: Any = caught.value.body
    assert error["type"] == "error"
    assert error["request_id"] == caught.value.response.headers["x-request-id"]
    told: dict[str, Any] = error["error"]
    return told


def test_each_refusal_is_the_error_class_that_clients_expect(door: Served) -> None:
    door.keys["wrong"] = "ph_" + "0" * 32 + "_" + "A" * 43
    assert fails(door, anthropic.AuthenticationError, "wrong")["type"] == "authentication_error"
    assert fails(door, anthropic.PermissionDeniedError, "reader")["type"] == "permission_error"
    assert fails(door, anthropic.NotFoundError, model="nothing")["type"] == "not_found_error"
    told = fails(door, anthropic.BadRequestError, thinking={"type": "enabled", "budget_tokens": 1024})
    assert "thinking" in told["message"]
    assert "top_k" in fails(door, anthropic.BadRequestError, extra_body={"top_k": 5})["message"]
    assert fails(door, anthropic.UnprocessableEntityError, max_tokens=0)["type"] == "invalid_request_error"
    assert fails(door, anthropic.InternalServerError, messages=asks("status 500"))["type"] == "api_error"


def test_a_message_that_breaks_fails_in_the_stream(door: Served, claude: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as caught:
        list(claude.messages.create(model="default", max_tokens=50, messages=asks("break one two"), stream=True))
    assert caught.value.body["error"]["type"] == "api_error"  # type: ignore[index]


def test_arguments_that_are_no_json_are_an_error_and_no_half_tool(http: httpx.Client) -> None:
    asked = {"model": "default", "max_tokens": 50, "messages": asks('call weather {"city": ')}
    answer = http.post("/v1/messages", json=asked)
    assert answer.status_code == 502
    streamed = http.post("/v1/messages", json=asked | {"stream": True})
    assert json.loads(streamed.text.strip().split("data: ")[-1])["type"] == "error"
