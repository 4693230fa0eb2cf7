"""The gateway where LangChain is expected: what agents, chains and notebooks see of it."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel, ValidationError

from app.records import Payer
from app.services.gateway.chat_model import GatewayChatModel
from app.services.gateway.scripted import Line, Say, ScriptedGateway
from graphs.errors import Invalid, Missing, UpstreamTimeout
from graphs.types import Message, ModelRequest, ToolProposal, Usage

SPENT = Usage(19, 3, cached_input_tokens=8, cache_write_tokens=4)
HELLO = Say(("Hello", ", ", "world"), usage=SPENT)
CALL = Say(tool_calls=(ToolProposal("c1", "weather", {"city": "Bern", "day": None}),), usage=SPENT)


def model(*script: Line, **given: Any) -> tuple[GatewayChatModel, ScriptedGateway]:
    gateway = ScriptedGateway(script)
    return GatewayChatModel(gateway=gateway, **given), gateway


@tool
def weather(city: str, day: str | None = None) -> str:
    """The weather of a city."""
    return f"{city}: rain"


class Rotation(BaseModel):
    days: int
    urgent: bool


async def test_a_call_carries_messages_settings_and_stop_texts_and_gives_usage_back() -> None:
    chat, gateway = model(HELLO, temperature=0.5, max_tokens=40)
    asked = [SystemMessage("Be brief."), HumanMessage("Hi"), AIMessage("Yes?"), HumanMessage("Say hello")]
    answer = await chat.ainvoke(asked, stop=["\n"], max_tokens=9)
    assert gateway.requests == (
        ModelRequest(
            messages=(
                Message("system", "Be brief."),
                Message("user", "Hi"),
                Message("assistant", "Yes?"),
                Message("user", "Say hello"),
            ),
            model="scripted",
            max_tokens=9,
            temperature=0.5,
            stop=("\n",),
            question="Say hello",
        ),
    )
    assert answer.text == "Hello, world"
    assert answer.usage_metadata == {
        "input_tokens": 19,
        "output_tokens": 3,
        "total_tokens": 22,
        "input_token_details": {"cache_read": 8, "cache_creation": 4},
    }
    assert answer.response_metadata["model_name"] == "scripted"
    assert answer.response_metadata["finish_reason"] == "stop"


async def test_a_stream_gives_each_piece_as_it_comes_and_adds_up_to_the_answer() -> None:
    chat, _ = model(HELLO)
    pieces = [piece async for piece in chat.astream("Say hello")]
    assert [piece.text for piece in pieces if piece.text] == ["Hello", ", ", "world"]
    whole = pieces[0]
    for piece in pieces[1:]:
        whole += piece
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] == 22
    assert whole.response_metadata["finish_reason"] == "stop"


@pytest.mark.parametrize("streamed", [False, True])
async def test_tools_are_offered_and_their_calls_come_back_whole(streamed: bool) -> None:
    chat, gateway = model(CALL)
    bound = chat.bind_tools([weather], tool_choice="any")
    if streamed:
        pieces = [piece async for piece in bound.astream("Rain?")]
        answer: Any = pieces[0]
        for piece in pieces[1:]:
            answer += piece
    else:
        answer = await bound.ainvoke("Rain?")
    (request,) = gateway.requests
    assert request.tool_choice == "required"
    assert [spec.name for spec in request.tools] == ["weather"]
    assert request.tools[0].parameters["properties"].keys() == {"city", "day"}
    assert answer.tool_calls == [
        {"name": "weather", "args": {"city": "Bern", "day": None}, "id": "c1", "type": "tool_call"}
    ]


@pytest.mark.parametrize(
    ("choice", "ours"),
    [
        (None, "auto"),
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (True, "required"),
        ("weather", "weather"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
    ],
)
async def test_every_way_to_choose_a_tool_is_understood(choice: Any, ours: str) -> None:
    chat, gateway = model(HELLO)
    await chat.bind_tools([weather], tool_choice=choice).ainvoke("x")
    assert gateway.requests[0].tool_choice == ours


async def test_a_prebuilt_agent_works_over_the_gateway() -> None:
    chat, gateway = model(CALL, "Rain in Bern.")
    agent = create_agent(chat, [weather])
    told = await agent.ainvoke({"messages": [HumanMessage("Rain in Bern?")]})
    assert told["messages"][-1].text == "Rain in Bern."
    assert gateway.requests[1].messages[1:] == (
        Message("assistant", "", tool_calls=CALL.tool_calls),
        Message("tool", "Bern: rain", tool_call_id="c1"),
    )


async def test_structured_output_is_asked_for_by_a_closed_schema_and_parsed() -> None:
    chat, gateway = model('{"days": 90, "urgent": false}', '{"days": 90, "urgent": true}', "no idea")
    assert await chat.with_structured_output(Rotation).ainvoke("How often?") == Rotation(days=90, urgent=False)
    schema = gateway.requests[0].response_schema
    assert schema is not None
    assert schema["additionalProperties"] is False
    plain = chat.with_structured_output(Rotation.model_json_schema(), include_raw=True)
    told = await plain.ainvoke("How often?")
    assert told["parsed"] == {"days": 90, "urgent": True}
    assert told["raw"].usage_metadata
    told = await plain.ainvoke("How often?")
    assert told["parsed"] is None
    assert told["parsing_error"] is not None


async def test_the_payer_pays() -> None:
    payers: list[Payer] = []
    chat, gateway = model(HELLO, HELLO, payer=Payer("acme", "ann"))
    gateway.recovery.observe(lambda attempt: payers.append(attempt.payer))
    await chat.ainvoke("x")
    _ = [piece async for piece in chat.astream("x")]
    assert payers == [Payer("acme", "ann")] * 2


async def test_leaving_a_stream_stops_the_model() -> None:
    chat, gateway = model(Say(("Hello", ", ", "world"), wait_between=asyncio.Event()))
    stream: Any = chat.astream("x")
    await anext(stream)
    await stream.aclose()
    async with asyncio.timeout(5):
        while not gateway.provider.closed_early:
            await asyncio.sleep(0)


async def test_failures_are_ours() -> None:
    chat, _ = model(UpstreamTimeout("scripted took too long"))
    with pytest.raises(UpstreamTimeout):
        await chat.ainvoke("x")
    with pytest.raises(Missing):
        await GatewayChatModel(gateway=chat.gateway, model="none").ainvoke("x")


@pytest.mark.parametrize("content", [[{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]])
async def test_what_cannot_be_carried_is_refused(content: Any) -> None:
    chat, gateway = model(HELLO)
    with pytest.raises(Invalid):
        await chat.ainvoke([HumanMessage(content)])
    with pytest.raises(Invalid):
        await chat.bind_tools([weather], tool_choice=7).ainvoke("x")  # type: ignore[arg-type]
    assert gateway.requests == ()


def test_it_can_be_called_where_no_loop_runs() -> None:
    chat, gateway = model(HELLO, CALL, HELLO)
    assert chat.invoke("Say hello").text == "Hello, world"
    assert chat.bind_tools([weather]).invoke([HumanMessage("Rain?")]).tool_calls[0]["name"] == "weather"
    assert [piece.text for piece in chat.stream("Say hello") if piece.text] == ["Hello", ", ", "world"]
    assert len(gateway.requests) == 3
    assert chat.get_num_tokens("Say hello") == gateway.count_tokens("Say hello")


def test_a_synchronous_stream_gives_pieces_before_the_end_and_can_be_left() -> None:
    chat, gateway = model(Say(("Hello", ", ", "world"), wait_between=asyncio.Event()))
    stream: Iterator[Any] = chat.stream("x")
    assert next(stream).text == "Hello"
    stream.close()  # type: ignore[attr-defined]
    with pytest.raises(UpstreamTimeout):
        model(UpstreamTimeout("late"))[0].invoke("x")
    assert gateway.provider.closed_early == 1


async def test_synchronous_calls_from_a_thread_run_on_the_loop_of_the_gateway() -> None:
    chat, _ = model(HELLO, HELLO)
    assert (await asyncio.to_thread(chat.invoke, "x")).text == "Hello, world"
    pieces = await asyncio.to_thread(lambda: [piece.text for piece in chat.stream("x")])
    assert "".join(pieces) == "Hello, world"


async def test_a_synchronous_call_inside_a_running_loop_says_what_to_do() -> None:
    chat, gateway = model(HELLO)
    with pytest.raises(RuntimeError, match="ainvoke"):
        chat.invoke("x")
    with pytest.raises(RuntimeError, match="astream"):
        list(chat.stream("x"))
    assert gateway.requests == ()


async def test_tool_results_go_back_by_the_id_of_their_call() -> None:
    chat, gateway = model(HELLO)
    calls = [{"name": "weather", "args": {"city": "Bern"}, "id": "c1"}]
    await chat.ainvoke([HumanMessage("Rain?"), AIMessage("", tool_calls=calls), ToolMessage("rain", tool_call_id="c1")])
    assert gateway.requests[0].messages[1:] == (
        Message("assistant", "", tool_calls=(ToolProposal("c1", "weather", {"city": "Bern"}),)),
        Message("tool", "rain", tool_call_id="c1"),
    )


def test_a_model_without_a_gateway_cannot_be_made() -> None:
    with pytest.raises(ValidationError):
        GatewayChatModel()  # type: ignore[call-arg]
