"""What is OpenAI's wire's own: counts told twice, tool calls in pieces, its base URL."""

from typing import Any

import pytest

from app.services.gateway.openai import OpenAiProvider
from app.services.gateway.server import ModelServer
from graphs.errors import Invalid
from tests.fake_openai import GREETING, USAGE, FakeOpenAi, chunk, events, never, sends
from tests.services.gateway.test_wires import last
from tests.services.gateway.wires import OPENAI


async def test_r06_usage_told_twice_counts_once() -> None:
    growing = [chunk(choices=[], usage=USAGE | {"completion_tokens": count}) for count in (1.0, 3.0)]
    told = await last(OPENAI, sends(events(*GREETING[:5], *growing)))
    assert (told.usage.input_tokens, told.usage.output_tokens, told.usage.estimated) == (19, 3, False)


async def test_tool_calls_are_put_together_from_their_pieces() -> None:
    def piece(index: int, **function: str) -> dict[str, Any]:
        named = {"id": f"call_{function['name']}"} if "name" in function else {}
        return chunk(delta={"tool_calls": [{"index": index, "type": "function", "function": function} | named]})

    said = (
        piece(0, name="calculator", arguments=""),
        piece(0, arguments='{"expression":'),
        piece(1, name="current_time", arguments=""),
        piece(0, arguments=' "3+4"}'),
        chunk(finish="tool_calls"),
        chunk(choices=[], usage=USAGE),
    )
    told = await last(OPENAI, sends(events(*said)))
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
    told = await last(OPENAI, sends(events(*both, chunk(finish="stop"))))
    assert [call.name for call in told.tool_calls] == ["first", "second"]
    assert told.finish_reason == "tool_calls"


@pytest.mark.parametrize("url", ["", "127.0.0.1:80", "file:///etc/passwd", "http://", "ftp://host/v1"])
def test_a_base_url_must_be_one(url: str) -> None:
    info = FakeOpenAi(never, url="http://127.0.0.1").provider().info
    with pytest.raises(Invalid) as raised:
        OpenAiProvider(info, ModelServer(url, named="openai_base_url"))
    assert raised.value.field == "openai_base_url"
