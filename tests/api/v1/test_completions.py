"""Chat completions through the real `openai` client, unmodified."""

import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.api.served import Served
from tests.api.v1.conftest import openai_client
from tests.api.v1.upstream import Upstream


def asks(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def test_an_answer_comes_as_the_model_gave_it(client: openai.OpenAI, lab: Upstream) -> None:
    answer = client.chat.completions.create(model="big", messages=asks("say Hello there, world"), max_tokens=50)
    assert answer.choices[0].message.content == "Hello there, world"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (19, 7)
    assert lab.last["model"] == "served-1"
    assert lab.last["max_tokens"] == 50


@pytest.mark.parametrize("model", ["either", "default", "small"])
def test_a_model_may_be_named_by_its_route(client: openai.OpenAI, lab: Upstream, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=asks("say Hello"))
    assert answer.choices[0].message.content == "Hello"
    assert lab.last["model"] == {"small": "served-2"}.get(model, "served-1")


def test_a_stream_gives_the_same_text_and_its_usage_only_when_asked(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="big", messages=asks("say Hello there, world"), stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there, world"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert not any(chunk.usage for chunk in chunks)
    counted = list(
        client.chat.completions.create(
            model="big", messages=asks("say Hello"), stream=True, stream_options={"include_usage": True}
        )
    )
    assert [bool(chunk.usage) for chunk in counted] == [False] * (len(counted) - 1) + [True]
    assert counted[-1].choices == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
def test_what_came_together_leaves_together(http: httpx.Client, path: str) -> None:
    """And loses nothing by it: each piece costs a call of the kernel."""
    body = {"model": "big", "max_tokens": 50, "messages": asks("burst " + "word " * 50), "stream": True}
    with http.stream("POST", path, json=body) as answer:
        pieces = list(answer.iter_raw())
    told = b"".join(pieces).decode()
    assert told.count("word ") == 50
    assert told.rstrip().endswith("[DONE]" if "chat" in path else '{"type":"message_stop"}')
    assert len(pieces) < 25


def test_usage_that_the_model_server_left_out_is_counted(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(model="big", messages=asks("mute Hello"), stream=True, stream_options=options)
    )
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 0
    assert chunks[-1].usage.completion_tokens > 0


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": -4, "completion_tokens": 1e308}], ids=repr)
def test_a_tool_call_without_a_usage_that_can_be_true_is_counted_and_told_as_counted(
    http: httpx.Client, door: Served, usage: Any
) -> None:
    call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": "one two"}' * 9}}
    piece = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": piece, "delta": piece, "finish_reason": "tool_calls"}
    sent = "send " + json.dumps({"id": "x", "model": "served-1", "choices": [choice], "usage": usage})
    asked = {"model": "big", "messages": asks(sent), "stream_options": {"include_usage": True}}
    whole = http.post("/v1/chat/completions", json=asked | {"stream": False}).json()
    lines = http.post("/v1/chat/completions", json=asked | {"stream": True}).text.split("\n\n")
    told = [json.loads(line[6:])["usage"] for line in lines if line.startswith("data: {")]
    assert told == [None, whole["usage"]]
    assert whole["usage"]["completion_tokens"] > 9 * 5
    assert whole["usage"]["total_tokens"] == whole["usage"]["prompt_tokens"] + whole["usage"]["completion_tokens"]


WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def test_a_tool_call_comes_whole_and_in_pieces(client: openai.OpenAI, lab: Upstream) -> None:
    asked = asks('call weather {"city": "Oslo"}')
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    whole = client.chat.completions.create(model="big", messages=asked, tools=[WEATHER], tool_choice=choice)
    assert whole.choices[0].message.tool_calls is not None
    (call,) = whole.choices[0].message.tool_calls
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    assert lab.last["tools"] == [WEATHER]
    assert lab.last["tool_choice"] == choice
    with client.chat.completions.stream(model="big", messages=asked, tools=[WEATHER]) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.tool_calls
    assert final.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    assert final.choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ({"max_tokens": 900, "max_completion_tokens": 12}, {"max_tokens": 12, "max_completion_tokens": 12}),
        ({"max_completion_tokens": 12}, {"max_completion_tokens": 12}),
        ({}, {"max_tokens": 1_024}),
    ],
)
def test_under_a_budget_no_limit_of_an_answer_lets_more_through_than_was_reserved(
    door: Served, lab: Upstream, asked: Any, sent: Any
) -> None:
    openai_client(door, "nell").chat.completions.create(model="small", messages=asks("say Hello"), **asked)
    assert {name: lab.last[name] for name in ("max_tokens", "max_completion_tokens") if name in lab.last} == sent


class Place(BaseModel):
    city: str
    people: int


def test_a_structured_answer_is_parsed(client: openai.OpenAI, lab: Upstream) -> None:
    told = client.chat.completions.parse(
        model="big", messages=asks('say {"city": "Oslo", "people": 700000}'), response_format=Place
    )
    assert told.choices[0].message.parsed == Place(city="Oslo", people=700_000)
    assert lab.last["response_format"]["json_schema"]["strict"] is True


def test_what_the_gateway_does_not_read_reaches_the_model_server_as_it_was_sent(
    client: openai.OpenAI, lab: Upstream
) -> None:
    given: Any = {"stop": ["END"], "seed": 7, "logit_bias": {"50256": -100}, "presence_penalty": 0.5, "user": "u1"}
    client.chat.completions.create(model="big", messages=asks("say Hello"), **given, extra_body={"min_p": 0.1})
    assert {name: lab.last[name] for name in given} == given
    assert lab.last["min_p"] == 0.1


def test_several_choices_and_their_log_probabilities_pass(client: openai.OpenAI) -> None:
    options: Any = {"model": "big", "messages": asks("spell Hello, x"), "n": 2, "logprobs": True}
    whole = client.chat.completions.create(**options)
    assert [choice.message.content for choice in whole.choices] == ["Hello, x"] * 2
    spelled = whole.choices[0].logprobs
    assert spelled is not None
    assert "".join(entry.token for entry in spelled.content or ()) == "Hello, x"
    texts, tokens = ["", ""], ["", ""]
    for chunk in client.chat.completions.create(**options, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            if choice.logprobs and choice.logprobs.content:
                tokens[choice.index] += "".join(entry.token for entry in choice.logprobs.content)
    assert texts == tokens == ["Hello, x"] * 2


async def test_the_async_client_works_too(door: Served) -> None:
    async with openai.AsyncOpenAI(base_url=door.url + "/v1", api_key=door.keys["ann"]) as client:
        answer = await client.chat.completions.create(model="big", messages=asks("say Hello"))
        assert answer.choices[0].message.content == "Hello"
        stream = await client.chat.completions.create(model="big", messages=asks("say Hello"), stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Hello"


@pytest.mark.parametrize("stream", [False, True])
def test_a_graph_answers_by_its_name(client: openai.OpenAI, lab: Upstream, stream: bool) -> None:
    """With the run's id and its citations beside the answer."""
    with client.chat.completions.with_streaming_response.create(
        model="pilothouse/chat", messages=asks("say Hello"), stream=stream
    ) as answer:
        text = answer.read().decode()
    assert lab.last["messages"][-1]["content"].endswith("say Hello")
    assert '"requestId":"' in text
    assert "Hello" in text
    assert text.rstrip().endswith("data: [DONE]") is stream


@pytest.mark.parametrize("stream", [False, True])
def test_a_graph_s_answer_fits_the_schema_of_the_call_or_there_is_none(http: httpx.Client, stream: bool) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"]}
    asked = {
        "model": "pilothouse/chat",
        "stream": stream,
        "response_format": {"type": "json_schema", "json_schema": {"name": "count", "schema": schema}},
    }
    good = http.post("/v1/chat/completions", json=asked | {"messages": asks('say {"count": 3}')})
    assert good.status_code == 200
    assert json.dumps('{"count": 3}') in good.text
    bad = http.post("/v1/chat/completions", json=asked | {"messages": asks("say three")})
    assert "answer_not_valid" in bad.text
    assert "three" not in bad.text
    assert bad.status_code == 502, "nothing had left, so that a stream can still be refused"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"n": 2}, "n"),
        ({"tools": [WEATHER]}, "tools"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"model": "pilothouse/nothing"}, "model"),
    ],
)
def test_a_graph_refuses_what_it_cannot_take(http: httpx.Client, body: dict[str, Any], field: str) -> None:
    asked = {"model": "pilothouse/chat", "messages": asks("say Hello")} | body
    answer = http.post("/v1/chat/completions", json=asked)
    assert answer.status_code in {404, 422}
    assert answer.json()["error"]["param"] == field


def test_models_routes_and_graphs_are_listed(client: openai.OpenAI, door: Served) -> None:
    names = {model.id for model in client.models.list()}
    assert names >= {"big", "small", "vectors", "default", "either", "pilothouse/rag", "pilothouse/agent"}
    assert client.models.retrieve("pilothouse/rag").owned_by == "pilothouse"
    assert client.models.retrieve("big").id == "big"
    with openai_client(door, "nell") as narrow:
        allowed = {model.id for model in narrow.models.list()}
    assert "big" not in allowed
    assert {"small", "either"} <= allowed


# Errors


def fails(door: Served, kind: type[openai.APIStatusError], who: str = "ann", **asked: Any) -> openai.APIStatusError:
    body: dict[str, Any] = {"model": "default", "messages": asks("say Hello")} | asked
    with openai_client(door, who, max_retries=0) as client, pytest.raises(kind) as caught:
        client.chat.completions.create(**body)
    error = caught.value
    assert isinstance(error.body, dict)
    assert error.body.keys() == {"message", "type", "param", "code"}
    return error


def test_each_refusal_is_the_error_class_that_clients_expect(door: Served) -> None:
    door.keys["wrong"] = "ph_" + "0" * 32 + "_" + "A" * 43
    unknown = fails(door, openai.AuthenticationError, "wrong")
    assert (unknown.code, unknown.type) == ("unauthenticated", "authentication_error")
    assert fails(door, openai.PermissionDeniedError, "reader").code == "forbidden"
    assert fails(door, openai.PermissionDeniedError, "nell").param == "model"
    assert fails(door, openai.NotFoundError, model="nothing").param == "model"
    assert fails(door, openai.UnprocessableEntityError, temperature=1, n=0).param == "n"
    long = fails(door, openai.BadRequestError, model="small", messages=asks("word " * 9_000))
    assert long.code == "context_length_exceeded"


def test_a_rate_limit_says_when_to_come_back(door: Served) -> None:
    with openai_client(door, "paul", max_retries=0) as client, pytest.raises(openai.RateLimitError) as caught:
        for _ in range(3):
            client.chat.completions.create(model="big", messages=asks("say Hello"))
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 61  # a minute and a slot of the window
    assert caught.value.response.headers["ratelimit-remaining"] == "0"
    assert caught.value.code == "rate_limited"


@pytest.mark.parametrize(
    ("told", "kind", "status", "retry"),
    [
        (500, openai.InternalServerError, 502, "false"),
        (401, openai.InternalServerError, 502, "false"),
        (404, openai.InternalServerError, 502, "false"),
        (400, openai.BadRequestError, 400, "false"),
        (429, openai.InternalServerError, 503, "true"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_failing_model_server_is_an_error_that_tells_nothing_of_the_prompt(
    door: Served, told: int, kind: type[openai.APIStatusError], status: int, retry: str, stream: bool
) -> None:
    error = fails(door, kind, messages=asks(f"status {told}"), stream=stream)
    assert error.status_code == status
    assert error.response.headers["x-should-retry"] == retry
    assert "canary" not in error.response.text


def test_the_client_does_not_multiply_what_the_gateway_has_tried(door: Served, lab: Upstream) -> None:
    with openai_client(door) as client, pytest.raises(openai.InternalServerError):  # it would try three times
        client.chat.completions.create(model="default", messages=asks("status 500"))
    assert len(lab.requests) == 1


def test_a_stream_that_breaks_says_so_and_is_never_done(door: Served, http: httpx.Client) -> None:
    asked: Any = {"model": "default", "messages": asks("break one two three"), "stream": True}
    answer = http.post("/v1/chat/completions", json=asked)
    frames = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert answer.status_code == 200
    assert "[DONE]" not in frames
    assert json.loads(frames[-1])["error"]["code"] == "upstream_broke_off"
    with openai_client(door) as client, pytest.raises(openai.APIError):
        list(client.chat.completions.create(**asked))


def test_where_a_route_says_so_another_model_goes_on_and_the_place_is_marked(http: httpx.Client, lab: Upstream) -> None:
    asked = {"model": "goes_on", "messages": asks("break one two three"), "stream": True}
    frames = [
        frame.removeprefix("data: ") for frame in http.post("/v1/chat/completions", json=asked).text.split("\n\n")
    ]
    assert frames[-2] == "[DONE]"
    assert [json.loads(frame)["pilothouse"] for frame in frames[:-2] if "pilothouse" in frame] == [
        {"continuedBy": "small"}
    ]
    assert [turn["role"] for turn in lab.last["messages"]] == ["user", "assistant", "user"]
    assert "one two three".startswith(lab.last["messages"][1]["content"])


GARBAGE: list[Any] = [
    [],
    {},
    {"choices": 5},
    {"choices": [5]},
    {"choices": [{"message": 5, "finish_reason": "stop"}]},
    {"choices": [{"index": [], "delta": {"content": "x"}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [5, {"function": 5}, {"index": []}]}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "message": {"content": [5, {"text": 5}]}, "finish_reason": "stop"}], "usage": "many"},
    {"error": {"message": "canary", "type": "server_error"}},
]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("sent", GARBAGE)
def test_a_model_server_that_answers_garbage_is_no_failure_of_ours(http: httpx.Client, path: str, sent: Any) -> None:
    text = "send " + json.dumps(sent)
    body = {"model": "default", "max_tokens": 50, "messages": asks(text), "input": text}
    for stream in (False, True):
        answer = http.post(path, json=body | {"stream": stream})
        assert answer.status_code in {200, 502}
        assert "internal_error" not in answer.text
        assert "server failed" not in answer.text
        assert answer.status_code == 502 or not isinstance(sent, dict) or sent.get("choices")
        assert "canary" not in answer.text
