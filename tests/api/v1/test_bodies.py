"""Bodies of every wrong kind, at every endpoint: refused in the client's wire, never an accident, never a call."""

import copy
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx
import openai
import pytest

from app.api.body import MAX_DEPTH
from app.api.v1.messages_body import messages_body
from app.api.v1.reading import loads
from app.api.v1.responses_body import responses_body
from app.api.v1.shapes import ChatBody, chat_body
from app.api.v1.typed import model_request
from graphs.errors import Invalid
from tests.api.served import Served
from tests.api.v1.upstream import Upstream

JSON = {"Content-Type": "application/json"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CHAT: dict[str, Any] = {
    "model": "default",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "x"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "Rain."},
        {"role": "user", "content": [{"type": "text", "text": "say Hello"}]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": SCHEMA}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "temperature": 1,
    "top_p": 1,
    "n": 1,
    "stop": ["x"],
    "stream": False,
    "stream_options": {"include_usage": True},
    "logprobs": False,
}
RESPONSE: dict[str, Any] = {
    "model": "default",
    "instructions": "Be brief.",
    "input": [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "Rain."},
        {"role": "user", "content": [{"type": "input_text", "text": "say Hello"}]},
    ],
    "tools": [{"type": "function", "name": "f", "description": "d", "parameters": SCHEMA, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}},
    "reasoning": {"effort": "low"},
    "metadata": {"a": "b"},
    "include": [],
    "max_output_tokens": 5,
    "temperature": 1,
    "parallel_tool_calls": True,
    "stream": False,
    "store": False,
}
MESSAGE: dict[str, Any] = {
    "model": "default",
    "max_tokens": 5,
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c", "content": "Rain."}]},
        {"role": "user", "content": [{"type": "text", "text": "say Hello"}]},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "f"},
    "stop_sequences": ["x"],
    "metadata": {"user_id": "u"},
    "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    "stream": False,
}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": RESPONSE,
    "/v1/messages": MESSAGE,
    "/v1/embeddings": {"model": "vectors", "input": ["a"], "encoding_format": "float"},
}
WRONG: list[Any] = [None, True, -1, 10**15, 1.5, 1e308, "", "x" * 300, [], [[]], [None], {}, {"a": {}}, [{"type": "x"}]]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value of a body."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def mutants(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path in places(body):
        for wrong in WRONG:
            changed = copy.deepcopy(body)
            holder = changed
            for key in path[:-1]:
                holder = holder[key]
            holder[path[-1]] = wrong
            yield changed


@pytest.mark.parametrize("path", BODIES)
def test_v09_a_wrong_type_at_any_place_is_never_a_failure_of_the_server(http: httpx.Client, path: str) -> None:
    assert http.post(path, json=BODIES[path]).status_code == 200
    for number, body in enumerate(mutants(BODIES[path])):
        if number % 5 == 0 or path == "/v1/embeddings":  # all of them go through the readers below
            answer = http.post(path, json=body)
            assert answer.status_code in {200, 400, 404, 422}, body
            assert answer.status_code == 200 or "message" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (CHAT, lambda raw: chat_body(raw, max_choices=8, max_output_tokens=100)),
        (RESPONSE, lambda raw: responses_body(raw, max_output_tokens=100).chat),
        (MESSAGE, lambda raw: messages_body(raw, max_output_tokens=100)),
    ],
    ids=["chat", "response", "message"],
)
def test_every_reader_takes_or_refuses_and_does_nothing_else(
    body: dict[str, Any], read: Callable[[Any], ChatBody]
) -> None:
    taken = 0
    for changed in mutants(body):
        with suppress(Invalid):
            model_request(read(changed), "x")
            taken += 1
    assert taken > 10


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nul",
        b"[]",
        b"5",
        b'"x"',
        b"null",
        b'{"model": NaN}',
        b'{"model": Infinity}',
        b'{"model": 1e999}',
        b'{"max_tokens": ' + b"9" * 5_000 + b"}",
        b'{"model": "\xff\xfe"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"tools": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"messages": [' + b"[]," * 1_100_000 + b"[]]}",
    ],
)
def test_v01_what_is_not_json_is_refused_before_it_is_built(http: httpx.Client, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers=JSON)
    assert answer.status_code in {400, 422}
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", BODIES)
def test_v01_a_body_of_a_hundred_megabytes_is_refused(door: Served, http: httpx.Client, path: str) -> None:
    size = 100 * 1024 * 1024
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {door.keys['ann']}\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection(door.address, timeout=20) as wire:
        wire.sendall(head.encode())
        assert wire.recv(4_096).startswith(b"HTTP/1.1 413 ")
    answer = http.post(path, content=(b" " * 1_048_576 for _ in range(40)), headers=JSON)  # its length not declared
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] in {"invalid_request_error", "request_too_large"}


@pytest.mark.parametrize("order", ["say", "call"])
@pytest.mark.parametrize("stream", [False, True])
def test_v02_a_lone_surrogate_is_replaced(http: httpx.Client, lab: Upstream, order: str, stream: bool) -> None:
    text = json.dumps(order + " x\ud800y").encode()
    body = b'{"model": "default", "messages": [{"role": "user", "content": ' + text + b"}]"
    answer = http.post("/v1/chat/completions", content=body + (b', "stream": true}' if stream else b"}"), headers=JSON)
    assert answer.status_code == 200
    assert lab.last["messages"][0]["content"] == order + " x\ufffdy"
    assert "\ufffd" in answer.text


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"n": 10**9}, "n"),
        ({"n": 9}, "n"),
        ({"n": 0}, "n"),
        ({"n": 1.0}, "n"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
        ({"max_tokens": 1e30}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"best_of": 5}, "best_of"),
    ],
)
def test_r08_what_would_multiply_the_cost_is_refused_by_policy(
    http: httpx.Client, lab: Upstream, given: dict[str, Any], field: str
) -> None:
    body = {"model": "default", "messages": [{"role": "user", "content": "say Hello"}]} | given
    answer = http.post("/v1/chat/completions", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, field)
    assert lab.requests == []


@pytest.mark.parametrize(
    ("given", "raised", "field"),
    [
        ({"n": 10**9}, openai.UnprocessableEntityError, "n"),
        ({"messages": []}, openai.UnprocessableEntityError, "messages"),
        ({"messages": [{"role": "user", "content": "status 400"}]}, openai.BadRequestError, None),
    ],
    ids=["refused by policy", "a value that is none", "refused by the vendor"],
)
def test_r08_openais_client_tells_our_refusal_from_a_vendors(
    client: openai.OpenAI, given: dict[str, Any], raised: type[openai.APIStatusError], field: str | None
) -> None:
    asked: dict[str, Any] = {"model": "default", "messages": [{"role": "user", "content": "say Hello"}]} | given
    with pytest.raises(raised) as told:
        client.chat.completions.create(**asked)
    assert (told.value.type, told.value.param) == ("invalid_request_error", field)


def test_v11_a_megabyte_of_one_character_is_counted_in_no_time(http: httpx.Client) -> None:
    began = time.perf_counter()
    for character in ("x", " ", "\u00e9", "\u6f22", "!"):
        body = {"model": "default", "messages": [{"role": "user", "content": character * 1_000_000}]}
        assert http.post("/v1/chat/completions", json=body).status_code == 400
    assert time.perf_counter() - began < 20  # a tokenizer takes minutes


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/models", 405),
        ("POST", "/v1/nothing", 404),
        ("GET", "/v1/models/nothing", 404),
        ("POST", "/v1/", 404),
    ],
)
def test_unknown_routes_are_told_in_the_same_wire(http: httpx.Client, method: str, path: str, status: int) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert answer.json()["error"]["code"]


@pytest.mark.parametrize("path", [*BODIES, "/v1/messages/count_tokens", "/v1/models", "/v1/models/big"])
def test_nothing_is_served_without_a_key(door: Served, lab: Upstream, path: str) -> None:
    with door.client() as nobody:
        method = "GET" if "models" in path else "POST"
        answer = nobody.request(method, path, json=BODIES.get(path, MESSAGE))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["type"] == "authentication_error"
    assert lab.requests == []


def test_the_reader_has_one_depth_however_it_is_written() -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        assert loads(opening * MAX_DEPTH + b"1" + closing * MAX_DEPTH) is not None
        with pytest.raises(Exception, match="deeper"):
            loads(opening * (MAX_DEPTH + 1) + b"1" + closing * (MAX_DEPTH + 1))
    assert loads(b'["' + b"[" * 1_000 + b'"]') == ["[" * 1_000]
