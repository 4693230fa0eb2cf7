"""OpenAI's Responses through the real `openai` client, unmodified."""

import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.api.served import Served
from tests.api.v1.upstream import Upstream

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


def test_a_text_is_answered_with_its_usage(client: openai.OpenAI, lab: Upstream) -> None:
    told = client.responses.create(
        model="big", input="say Hello there", instructions="Be brief.", max_output_tokens=50, temperature=0.5
    )
    assert told.output_text == "Hello there"
    assert told.status == "completed"
    assert told.usage is not None
    assert (told.usage.input_tokens, told.usage.output_tokens, told.usage.total_tokens) == (19, 7, 26)
    assert told.usage.input_tokens_details.cached_tokens == 4
    assert told.usage.output_tokens_details.reasoning_tokens == 3
    assert (told.instructions, told.max_output_tokens, told.temperature) == ("Be brief.", 50, 0.5)
    assert lab.last["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "say Hello there"},
    ]
    assert (lab.last["max_tokens"], lab.last["temperature"]) == (50, 0.5)


def test_a_stream_tells_the_events_in_the_order_of_the_wire(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="big", input="say Hello there, world", stream=True))
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas >= 2
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == "Hello there, world"
    assert last.response.usage is not None
    assert (last.response.usage.total_tokens, last.response.usage.output_tokens_details.reasoning_tokens) == (26, 3)


def test_a_function_is_called_and_its_output_taken(client: openai.OpenAI, lab: Upstream) -> None:
    asked: list[Any] = [{"role": "user", "content": 'call weather {"city": "Oslo"}'}]
    told = client.responses.create(model="big", input=asked, tools=[WEATHER], tool_choice="required")
    (call,) = told.output
    given: Any = call.to_dict()
    assert call.type == "function_call"
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Oslo"})
    assert lab.last["tools"][0]["function"]["name"] == "weather"
    assert lab.last["tool_choice"] == "required"

    output: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "say Rain"}
    done = client.responses.create(model="big", input=[*asked, given, output], tools=[WEATHER])
    assert done.output_text == "Rain"
    assert [turn["role"] for turn in lab.last["messages"]] == ["user", "assistant", "tool"]
    assert lab.last["messages"][1]["tool_calls"][0]["id"] == lab.last["messages"][2]["tool_call_id"] == call.call_id


def test_the_arguments_of_a_call_are_streamed(client: openai.OpenAI) -> None:
    with client.responses.stream(model="big", input='call weather {"city": "Oslo"}', tools=[WEATHER]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert kinds.count("response.function_call_arguments.delta") > 1
    assert kinds[-3:] == ["response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    (call,) = final.output
    assert call.type == "function_call"
    assert call.arguments == '{"city": "Oslo"}'


class Place(BaseModel):
    city: str


def test_a_structured_answer_is_parsed_whole_and_streamed(client: openai.OpenAI, lab: Upstream) -> None:
    told = client.responses.parse(model="big", input='say {"city": "Oslo"}', text_format=Place)
    assert told.output_parsed == Place(city="Oslo")
    assert lab.last["response_format"]["json_schema"]["name"] == "Place"
    with client.responses.stream(model="big", input='say {"city": "Oslo"}', text_format=Place) as stream:
        assert stream.get_final_response().output_parsed == Place(city="Oslo")


def test_images_and_parts_reach_the_model(client: openai.OpenAI, lab: Upstream) -> None:
    url = "data:image/png;base64,iVBORw0KGgo="
    content: list[Any] = [{"type": "input_text", "text": "say Hello"}, {"type": "input_image", "image_url": url}]
    client.responses.create(model="big", input=[{"role": "user", "content": content}])
    assert lab.last["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": url, "detail": "auto"}}


async def test_the_async_client_streams_too(door: Served) -> None:
    async with (
        openai.AsyncOpenAI(base_url=door.url + "/v1", api_key=door.keys["ann"]) as client,
        client.responses.stream(model="big", input="say Hello") as stream,
    ):
        final = await stream.get_final_response()
    assert final.output_text == "Hello"


@pytest.mark.parametrize("stream", [False, True])
def test_a_graph_answers_by_its_name(http: httpx.Client, stream: bool) -> None:
    answer = http.post("/v1/responses", json={"model": "pilothouse/chat", "input": "say Hello", "stream": stream})
    told = answer.json() if not stream else json.loads(answer.text.split("data: ")[-1])["response"]
    assert told["output"][0]["content"][0]["text"] == "Hello"
    assert told["pilothouse"]["requestId"]
    assert told["usage"]["output_tokens"] > 0


def test_a_response_that_breaks_fails_in_the_stream(client: openai.OpenAI) -> None:
    events = list(client.responses.create(model="default", input="break one two", stream=True))
    last = events[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None
    assert str(last.response.error.code) == "upstream_broke_off"
    assert last.response.status == "failed"


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"truncation": "auto"}, "truncation"),
        ({"include": ["file_search_call.results"]}, "include"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input.0.type"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "input.0.content.0"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(client: openai.OpenAI, given: Any, field: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="big", **{"input": "say Hello"} | given)
    assert (caught.value.code, caught.value.param) == ("unsupported", field)


def test_an_answer_cut_by_its_limit_is_incomplete(http: httpx.Client) -> None:
    cut = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "One"}, "finish_reason": "length"}]}
    told = http.post("/v1/responses", json={"model": "big", "input": "send " + json.dumps(cut)}).json()
    assert told["status"] == "incomplete"
    assert told["incomplete_details"] == {"reason": "max_output_tokens"}
    assert told["usage"]["input_tokens"] > 0  # counted, since the server did not say
