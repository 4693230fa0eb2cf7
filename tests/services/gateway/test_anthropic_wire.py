"""A request as Anthropic's own client would type it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from pydantic import TypeAdapter

from app.services.gateway.anthropic_wire import ANSWER_TOOL, answers_by_tool, body
from graphs.types import Message, ModelInfo, ModelRequest, ToolProposal, ToolSpec

INFO = ModelInfo("claude-test", "", "anthropic", 8_192, 512, native_tools=True)
ASK = ModelRequest(messages=(Message("system", "Be brief."), Message("user", "Say hello")))
TIME = ToolSpec("now", "The time.", {"type": "object", "properties": {"zone": {"type": "string"}}})
CLOSED = {
    "type": "object",
    "properties": {"minimum": {"type": "integer"}, "unit": {"enum": ["day", "pattern"]}},
    "required": ["minimum", "unit"],
    "additionalProperties": False,
}
CACHED = {"type": "ephemeral"}
KNOWN = TypeAdapter(MessageCreateParamsStreaming)


def said(request: ModelRequest, info: ModelInfo = INFO, *, cache_prompts: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(body(request, info, "claude-x", cache_prompts=cache_prompts))
    # `temperature` and `top_p` are no longer typed by the client: current models refuse them, older ones know them.
    typed = {name: value for name, value in told.items() if name not in {"temperature", "top_p"}}
    assert (
        typed.keys() <= MessageCreateParamsStreaming.__required_keys__ | MessageCreateParamsStreaming.__optional_keys__
    )
    KNOWN.validate_python(typed)
    return told


def test_a_plain_request_says_no_more_than_it_must() -> None:
    assert said(ASK) == {
        "model": "claude-x",
        "max_tokens": 512,
        "stream": True,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Say hello"}]}],
    }


@pytest.mark.parametrize(("asked", "limit"), [(None, 512), (40, 40), (10**12, 512)])
def test_r08_the_answer_is_always_bounded(asked: int | None, limit: int) -> None:
    assert said(replace(ASK, max_tokens=asked))["max_tokens"] == limit


def test_sampling_is_sent_where_it_is_asked_for_and_within_the_vendors_range() -> None:
    assert said(replace(ASK, temperature=1.7))["temperature"] == 1.0
    assert said(replace(ASK, top_p=0.5))["top_p"] == 0.5
    assert "top_p" not in said(replace(ASK, temperature=0.0, top_p=0.5)), "current models refuse the two together"
    assert said(replace(ASK, stop=("\n", "END")))["stop_sequences"] == ["END"], "it refuses blank ones"


def test_turns_of_one_side_are_joined_and_results_of_parallel_calls_come_in_one() -> None:
    first, second = ToolProposal("functions.now:0", "now", {"zone": "UTC"}), ToolProposal("b", "now", {})
    turns = (
        Message("user", "What time is it?"),
        Message("user", "In UTC."),
        Message("assistant", "", tool_calls=(first, second)),
        Message("tool", "12:00", tool_call_id="functions.now:0"),
        Message("tool", "", tool_call_id="b"),
        Message("assistant", "   "),
        Message("user", "Thanks"),
    )
    assert said(ModelRequest(turns, tools=(TIME,)))["messages"] == [
        {
            "role": "user",
            "content": [{"type": "text", "text": "What time is it?"}, {"type": "text", "text": "In UTC."}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "tool_use", "id": "functions_now_0", "name": "now", "input": {"zone": "UTC"}},
                {"type": "tool_use", "id": "b", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "functions_now_0", "content": "12:00"},
                {"type": "tool_result", "tool_use_id": "b", "content": ""},
                {"type": "text", "text": "Thanks"},
            ],
        },
    ]


CHOICES = [("auto", None), ("none", {"type": "none"}), ("required", {"type": "any"}),
           ("now", {"type": "tool", "name": "now"})]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs"), CHOICES)
def test_tools_and_the_choice_among_them_are_said(ours: str, theirs: Any) -> None:
    told = said(replace(ASK, tools=(TIME,), tool_choice=ours))
    assert told["tools"] == [{"name": "now", "description": "The time.", "input_schema": dict(TIME.parameters)}]
    assert told.get("tool_choice") == theirs


def test_a_model_without_tools_is_offered_none() -> None:
    told = said(replace(ASK, tools=(TIME,), tool_choice="required"), replace(INFO, native_tools=False))
    assert "tools" not in told
    assert "tool_choice" not in told


def test_the_stable_beginning_is_marked_for_the_vendors_cache() -> None:
    told = said(ASK, cache_prompts=True)
    assert told["system"] == [{"type": "text", "text": "Be brief.", "cache_control": CACHED}]
    assert "cache_control" not in str(told["messages"]), "a question is asked once"
    told = said(replace(ASK, tools=(TIME,)), cache_prompts=True)
    assert told["messages"][-1]["content"][-1]["cache_control"] == CACHED, "an agent's next step repeats all of it"
    told = said(ModelRequest(ASK.messages[1:], tools=(TIME, TIME)), cache_prompts=True)
    assert ["cache_control" in spec for spec in told["tools"]] == [False, True]
    assert said(ModelRequest(()), cache_prompts=True)["messages"] == []


def test_a_closed_schema_is_enforced_by_the_api_itself() -> None:
    told = said(replace(ASK, response_schema=CLOSED))
    assert told["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}}
    assert "tools" not in told


def within(**field: Any) -> dict[str, Any]:
    return CLOSED | {"properties": {"minimum": field, "unit": {"type": "string"}}}


OPEN: Mapping[str, Mapping[str, Any]] = {
    "nothing said": {},
    "an open object": {"type": "object", "properties": {"a": {"type": "string"}}},
    "a property that may be absent": CLOSED | {"required": ["unit"]},
    "a bound on a number": within(type="integer", minimum=1),
    "a pattern": within(type="string", pattern="^a"),
    "a bound inside a list": within(type="array", items={"type": "string", "maxLength": 3}),
    "one of several": within(oneOf=[{"type": "string"}, {"type": "null"}]),
}


@pytest.mark.parametrize("schema", OPEN.values(), ids=OPEN.keys())
def test_a_schema_that_the_api_cannot_enforce_becomes_a_tool_that_must_be_called(schema: Mapping[str, Any]) -> None:
    request = replace(ASK, response_schema=schema, tools=(TIME,))
    assert answers_by_tool(request)
    told = said(request)
    given = dict(schema) or {"type": "object"}
    assert told["tools"][-1] == {"name": ANSWER_TOOL, "description": "Give the answer.", "input_schema": given}
    assert told["tool_choice"] == {"type": "any"}
    assert "output_config" not in told


def test_a_lone_surrogate_does_not_break_the_body() -> None:
    told = said(replace(ASK, messages=(Message("user", "a\ud800b"),)))
    assert told["messages"][0]["content"][0]["text"] == "a\ufffdb"
