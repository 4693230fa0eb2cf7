"""LangChain's own clients of OpenAI's wire, unmodified, against the served app."""

from typing import Any

import pytest
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, SecretStr

from tests.api.served import Served
from tests.api.v1.upstream import Upstream


def model(door: Served, name: str = "big", **options: Any) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=door.url + "/v1", api_key=SecretStr(door.keys["ann"]), **options)


@tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"Rain in {city}."


class Place(BaseModel):
    """A city."""

    city: str


@pytest.mark.parametrize("responses", [False, True])
def test_invoke_and_stream(door: Served, responses: bool) -> None:
    chat = model(door, use_responses_api=responses, stream_usage=True)
    told = chat.invoke("say Hello there")
    assert told.text == "Hello there"
    assert told.usage_metadata is not None
    assert told.usage_metadata["total_tokens"] == 26
    chunks = list(chat.stream("say Hello there"))
    whole = sum(chunks[1:], chunks[0])
    assert isinstance(whole, AIMessageChunk)
    assert whole.text == "Hello there"
    assert whole.usage_metadata is not None
    assert whole.usage_metadata["total_tokens"] == 26


@pytest.mark.parametrize("responses", [False, True])
def test_bind_tools(door: Served, lab: Upstream, responses: bool) -> None:
    chat = model(door, use_responses_api=responses).bind_tools([weather])
    asked = HumanMessage('call weather {"city": "Oslo"}')
    told = chat.invoke([asked])
    (call,) = told.tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})
    done = chat.invoke([asked, told, ToolMessage("say Rain", tool_call_id=call["id"])])
    assert done.text == "Rain"
    assert [turn["role"] for turn in lab.last["messages"]] == ["user", "assistant", "tool"]
    streamed = list(chat.stream([asked]))
    whole: Any = sum(streamed[1:], streamed[0])
    assert whole.tool_calls[0]["args"] == {"city": "Oslo"}


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
def test_with_structured_output(door: Served, method: Any) -> None:
    structured = model(door).with_structured_output(Place, method=method)
    assert structured.invoke('say {"city": "Oslo"}') == Place(city="Oslo")


def test_structured_output_by_a_function_that_must_be_called(door: Served, lab: Upstream) -> None:
    structured = model(door).with_structured_output(Place, method="function_calling")
    assert structured.invoke('call Place {"city": "Oslo"}') == Place(city="Oslo")
    assert lab.last["tool_choice"]["function"]["name"] == "Place"


async def test_the_async_half(door: Served) -> None:
    chat = model(door)
    assert (await chat.ainvoke("say Hello")).text == "Hello"
    assert "".join([chunk.text async for chunk in chat.astream("say Hello")]) == "Hello"


def test_a_graph_is_a_model_for_langchain(door: Served) -> None:
    assert model(door, "pilothouse/chat").invoke("say Hello").text == "Hello"


def test_a_prompt_that_is_too_long_is_told_as_that(door: Served) -> None:
    with pytest.raises(ContextOverflowError):
        model(door, "small").invoke("word " * 9_000)


def test_embeddings(door: Served) -> None:
    """Its default sends token numbers, which are refused with the way out."""
    given: Any = {"model": "vectors", "base_url": door.url + "/v1", "api_key": door.keys["ann"]}
    embedded = OpenAIEmbeddings(**given, check_embedding_ctx_length=False).embed_documents(["a", "bcd"])
    assert embedded == [[1.0, 0.5, -0.25], [3.0, 0.5, -0.25]]
