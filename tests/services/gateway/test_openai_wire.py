from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from pydantic import TypeAdapter

from app.services.gateway.openai_wire import Sampling, body
from app.services.gateway.scripted import SCRIPTED
from graphs.types import Message, ModelRequest, ToolProposal, ToolSpec

KNOWN = TypeAdapter(CompletionCreateParamsStreaming)
OPTIONAL = CompletionCreateParamsStreaming.__optional_keys__
ASK = ModelRequest(messages=(Message("user", "Say hello"),))
TOOL = ToolSpec("calculator", "Adds", {"type": "object", "properties": {"expression": {"type": "string"}}})


def written(request: ModelRequest, sampling: Sampling | None = None, **given: Any) -> dict[str, Any]:
    made: dict[str, Any] = orjson.loads(body(request, given.pop("info", SCRIPTED), sampling or Sampling(), **given))
    assert made.keys() <= CompletionCreateParamsStreaming.__required_keys__ | OPTIONAL
    KNOWN.validate_python(made)
    return made


def test_what_nobody_said_is_left_to_the_server_except_the_length() -> None:
    assert written(ASK) == {
        "model": "scripted",
        "messages": [{"role": "user", "content": "Say hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": 2_048,
    }


def test_the_request_overrides_the_models_sampling() -> None:
    advised = Sampling(temperature=0.2, top_p=0.9)
    assert written(ASK, advised)["temperature"] == 0.2
    assert written(replace(ASK, temperature=0.0), advised)["temperature"] == 0.0
    assert written(replace(ASK, temperature=0.0), advised)["top_p"] == 0.9


@pytest.mark.parametrize(("asked", "sent"), [(None, 2_048), (7, 7), (10**9, 2_048)])
def test_an_answer_is_bounded_by_the_model(asked: int | None, sent: int) -> None:
    assert written(replace(ASK, max_tokens=asked), max_tokens_field="max_completion_tokens")[
        "max_completion_tokens"
    ] == (sent)


def test_a_turn_with_tools_is_told_in_the_wires_own_shapes() -> None:
    call = ToolProposal("call_1", "calculator", {"expression": "3+4"})
    messages = (Message("assistant", "", tool_calls=(call,)), Message("tool", "7", tool_call_id="call_1"))
    sent = written(ModelRequest(messages=messages, tools=(TOOL,)))
    function = {"name": "calculator", "arguments": '{"expression": "3+4"}'}
    assert sent["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        {"role": "tool", "content": "7", "tool_call_id": "call_1"},
    ]
    assert [tool["function"]["name"] for tool in sent["tools"]] == ["calculator"]


CHOICES = [("auto", None), ("none", "none"), ("required", "required"),
           ("calculator", {"type": "function", "function": {"name": "calculator"}})]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), CHOICES)
def test_the_choice_among_tools_and_the_ends_of_the_answer_are_said(ours: str, theirs: Any) -> None:
    sent = written(replace(ASK, tools=(TOOL,), tool_choice=ours, stop=("\n", "END")))
    assert sent.get("tool_choice") == theirs
    assert sent["stop"] == ["\n", "END"]
    assert "tool_choice" not in written(replace(ASK, tool_choice=ours)), "there is nothing to choose from"


def test_tools_are_not_sent_to_a_model_that_has_none() -> None:
    assert "tools" not in written(replace(ASK, tools=(TOOL,)), info=replace(SCRIPTED, native_tools=False))


PAIR = {"a": {"type": "string"}, "b": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        ({"type": "object", "properties": PAIR, "required": ["a", "b"], "additionalProperties": False}, True),
        ({"type": "object", "properties": PAIR, "required": ["a"], "additionalProperties": False}, False),
        ({"type": "object", "properties": PAIR, "required": ["a", "b"]}, False),
        ({"type": "array", "items": {"type": "object", "properties": PAIR}}, False),
        ({"enum": ["yes", "no"]}, True),
    ],
)
def test_strict_mode_is_asked_for_only_where_openai_takes_it(schema: Mapping[str, Any], strict: bool) -> None:
    sent = written(replace(ASK, response_schema=schema))["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": strict}}


def test_a_lone_surrogate_in_a_prompt_is_replaced_and_a_pair_is_joined() -> None:
    sent = written(ModelRequest(messages=(Message("user", "a\ud800b \ud83d\udd11"),)))
    assert sent["messages"][0]["content"] == "a\ufffdb 🔑"
