"""What every model provider promises; run on each of them, the real local model among them."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pytest
from aiohttp import web
from langchain_openai.chat_models._client_utils import _cached_async_httpx_client

from app.config.schema import ModelConfig, ProviderConfig
from app.services.gateway.anthropic import AnthropicProvider
from app.services.gateway.extractive import ExtractiveAnswerer
from app.services.gateway.langchain import LangChainProvider
from app.services.gateway.llamacpp import LlamaCppProvider, Loaded
from app.services.gateway.provider import Provider
from app.services.gateway.scripted import Say, ScriptedProvider
from app.services.gateway.server import ModelServer
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import (
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)
from graphs.types import Completion, Delta, Message, ModelRequest, Passage, ToolProposal, ToolSpec, Usage
from tests import fake_anthropic, fake_openai
from tests.fake_openai import chunk, events

ROTATION = "Rotate the owner key every ninety days. Old keys stay valid for one hour. Keep the new key in the vault."
QUESTION = "How often should the owner key be rotated?"
ASK = ModelRequest(
    messages=(Message("system", "You answer briefly."), Message("user", QUESTION)),
    max_tokens=16,
    question=QUESTION,
    grounding=(Passage("c1", "d1", "Keys", ROTATION, 0, len(ROTATION), 1.0, "handbook"),),
)
LONG = replace(ASK, max_tokens=400)
SCHEMA = {
    "type": "object",
    "properties": {"unit": {"enum": ["day", "week"]}, "urgent": {"type": "boolean"}},
    "required": ["unit", "urgent"],
    "additionalProperties": False,
}
SHAPED = '{"unit": "day", "urgent": false}'


TOOL = ToolSpec(
    "calculator",
    "Works out an expression.",
    {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)
CALLED = ToolProposal("call_1", "calculator", {"expression": "3+4"})
KINDS: Mapping[int, type[UpstreamError]] = {
    400: UpstreamRejected,
    401: UpstreamUnauthorized,
    404: UpstreamNotFound,
    413: UpstreamTooLong,
    429: UpstreamRateLimited,
    500: UpstreamError,
    504: UpstreamTimeout,
}


def failing(status: int) -> ModelRequest:
    """A call that the doubles of vendors answer with this status."""
    return replace(ASK, messages=(Message("user", f"fail {status}"),))


VENDOR_FAILURES = tuple((failing(status), kind) for status, kind in KINDS.items())
TOO_LONG = (replace(ASK, messages=(Message("user", "ship " * 2_000),)), UpstreamTooLong)


@dataclass
class Case:
    """A provider and how a test sees its upstream. `working` tells whether the upstream still works on a call."""

    provider: Provider
    working: Callable[[], bool] | None = None
    schemas: bool = False
    tools: bool = False
    counted: bool = True
    """Whether the upstream says what it used."""
    failures: Sequence[tuple[ModelRequest, type[UpstreamError]]] = ()


Opened = AbstractAsyncContextManager[Case]


@asynccontextmanager
async def scripted(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    asked = 0

    def answer(request: ModelRequest) -> Say:
        nonlocal asked
        asked += 1
        last = request.messages[-1].content
        if last.startswith("fail "):
            return Say(error=KINDS[int(last.removeprefix("fail "))]("scripted"))
        if request.tools:
            return Say(tool_calls=(CALLED,), usage=Usage(19, 3))
        return Say((SHAPED,)) if request.response_schema else Say(("Every ", "ninety ", "days."), usage=Usage(19, 3))

    provider = ScriptedProvider(answer)
    working = lambda: asked > provider.closed_early  # noqa: E731
    yield Case(provider, working, schemas=True, tools=True, failures=VENDOR_FAILURES)


def status_asked_for(body: Mapping[str, Any]) -> int | None:
    """The status that a call asks its double to fail with."""
    told = re.search(r"fail (\d{3})", str(body["messages"]))
    return int(told[1]) if told else None


async def openai_answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if (status := status_asked_for(body)) is not None:
        return web.json_response({"error": {"message": "no", "type": "x_error", "code": None}}, status=status)
    if not body.get("stream"):  # what LangChain asks for in place of a stream where a schema is to be obeyed
        choice = {"index": 0, "message": {"role": "assistant", "content": SHAPED}, "finish_reason": "stop"}
        return web.json_response(chunk(object="chat.completion", choices=[choice], usage=fake_openai.USAGE))
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if "response_format" in body:
        await response.write(events(chunk(SHAPED), chunk(finish="stop")))
        return response
    if "tools" in body:
        function = {"name": CALLED.name, "arguments": ""}
        first = {"tool_calls": [{"index": 0, "id": CALLED.call_id, "type": "function", "function": function}]}
        pieces = [{"tool_calls": [{"index": 0, "function": {"arguments": p}}]} for p in ('{"expression":', ' "3+4"}')]
        turns = [chunk(delta=delta) for delta in (first, *pieces)]
        usage = chunk(choices=[], usage=fake_openai.USAGE)
        await response.write(events(*turns, chunk(finish="tool_calls"), usage))
        return response
    for each in fake_openai.GREETING:
        await response.write(events(each, done=False))
        await asyncio.sleep(0.01)
    await response.write(events())
    return response


@asynccontextmanager
async def openai(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    async with fake_openai.fake_openai(openai_answer) as fake:
        working = lambda: not fake.gone.is_set()  # noqa: E731
        yield Case(fake.provider(), working, schemas=True, tools=True, failures=VENDOR_FAILURES)


async def anthropic_answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
    if (status := status_asked_for(body)) is not None:
        return web.json_response(fake_anthropic.error("x_error"), status=status)
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    if "output_config" in body:
        found = (fake_anthropic.start(), fake_anthropic.block(), fake_anthropic.delta(SHAPED), *fake_anthropic.stops())
        await response.write(fake_anthropic.events(*found))
        return response
    if "tools" in body:
        called = fake_anthropic.calls(CALLED.name, '{"expression":', ' "3+4"}', call_id=CALLED.call_id)
        found = (fake_anthropic.start(), *called, *fake_anthropic.stops("tool_use"))
        await response.write(fake_anthropic.events(*found))
        return response
    for each in fake_anthropic.GREETING:
        await response.write(fake_anthropic.event(each))
        await asyncio.sleep(0.01)
    return response


@asynccontextmanager
async def anthropic(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    async with fake_anthropic.fake_anthropic(anthropic_answer) as fake:
        working = lambda: not fake.gone.is_set()  # noqa: E731
        yield Case(fake.provider(), working, schemas=True, tools=True, failures=VENDOR_FAILURES)


@asynccontextmanager
async def langchain(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    """A vendor's real integration, against a double of the vendor."""
    async with fake_openai.fake_openai(openai_answer) as fake:
        place = ProviderConfig(kind="langchain", chat_model="langchain_openai:ChatOpenAI", base_url=f"{fake.url}/v1")
        model = ModelConfig(provider="lc", model="gpt-test")
        provider = LangChainProvider.configured(fake.provider().info, place, model, fake_openai.KEY)
        working = lambda: not fake.gone.is_set()  # noqa: E731
        yield Case(provider, working, schemas=True, tools=True, failures=VENDOR_FAILURES)
        # The integration shares its connections by address among all of its models and closes none. A later test may be
        # given the same port, and shall not be given what is closed here.
        await provider._model.root_async_client.close()  # type: ignore[attr-defined]
        _cached_async_httpx_client.cache_clear()


@cache
def loaded() -> Loaded:
    """llama.cpp's own server, loaded once; what speaks to it is made for each test."""
    return Loaded.load(context_tokens=1_024)


@asynccontextmanager
async def llamacpp(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    """By OpenAI's wire."""
    provider = LlamaCppProvider(loaded())
    yield Case(provider, busy, schemas=True, failures=[TOO_LONG])


@asynccontextmanager
async def llamacpp_by_anthropics_wire(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    """By Anthropic's, where it takes no schema."""
    url, key = LlamaCppProvider(loaded()).address
    provider = AnthropicProvider(loaded().info, ModelServer(url, key, keep_alive_s=None))
    yield Case(provider, busy, failures=[TOO_LONG])


def busy() -> bool:
    return LlamaCppProvider(loaded()).busy() > 0


@pytest.fixture(scope="module", autouse=True)
def unloaded() -> Iterator[None]:
    yield
    loaded.cache_clear()


@asynccontextmanager
async def extractive(embedder: MiniLmEmbedder) -> AsyncIterator[Case]:
    yield Case(ExtractiveAnswerer(embedder), counted=False)


OPENED = [scripted, openai, anthropic, langchain, llamacpp, llamacpp_by_anthropics_wire, extractive]


@pytest.fixture(params=OPENED, ids=lambda opened: opened.__name__)
async def case(request: pytest.FixtureRequest, embedder: MiniLmEmbedder) -> AsyncIterator[Case]:
    opened: Opened = request.param(embedder)
    async with opened as case:
        yield case
        await case.provider.close()


async def whole(provider: Provider, request: ModelRequest = ASK) -> Completion:
    (*_, completion) = [item async for item in provider.stream(request)]
    assert isinstance(completion, Completion)
    return completion


async def test_deltas_concatenate_to_the_text_of_the_one_completion_which_comes_last(case: Case) -> None:
    *deltas, completion = [item async for item in case.provider.stream(ASK)]
    assert isinstance(completion, Completion)
    assert all(isinstance(delta, Delta) and delta.text for delta in deltas)
    assert "".join(delta.text for delta in deltas if isinstance(delta, Delta)) == completion.text != ""


async def test_a_completion_says_which_model_gave_it(case: Case) -> None:
    info, completion = case.provider.info, await whole(case.provider)
    assert (completion.model, completion.provider) == (info.name, info.provider)
    assert completion.model_version
    assert info.version in {"", completion.model_version}
    assert 0 < info.max_output_tokens <= info.context_tokens


async def test_usage_is_never_negative_and_counts_what_was_written(case: Case) -> None:
    usage = (await whole(case.provider)).usage
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0
    assert usage.estimated is not case.counted


@pytest.mark.parametrize("text", ["", "a", "Rotate the key.\n" * 50, "zwölf 鍵 🔑", "lone \ud800 surrogate"], ids=repr)
async def test_any_text_can_be_counted(case: Case, text: str) -> None:
    assert 0 <= case.provider.count_tokens(text) <= len(text.encode("utf-8", "replace")) + 1


@pytest.mark.parametrize("text", ["zwölf 鍵 🔑", "lone \ud800 surrogate", "\0", "data: [DONE]\n\n"], ids=repr)
async def test_any_text_can_be_asked(case: Case, text: str) -> None:
    completion = await whole(case.provider, replace(ASK, messages=(Message("user", text),), question=text))
    completion.text.encode()  # what comes back can be written away


async def left(provider: Provider) -> None:
    async with aclosing(provider.stream(LONG)) as stream:
        await anext(stream)


async def cancelled(provider: Provider) -> None:
    stream = provider.stream(LONG)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("stop", [left, cancelled])
async def test_a_call_that_is_stopped_stops_its_upstream(
    case: Case, stop: Callable[[Provider], Awaitable[None]]
) -> None:
    if case.working is None:
        pytest.skip("works in one piece and has no upstream")
    await stop(case.provider)
    async with asyncio.timeout(20):
        while case.working():
            await asyncio.sleep(0.02)


async def test_calls_side_by_side_do_not_mix(case: Case) -> None:
    completions = await asyncio.gather(*(whole(case.provider, replace(ASK, max_tokens=8)) for _ in range(4)))
    assert len(completions) == 4
    assert all(completion.text for completion in completions)


async def test_an_answer_obeys_its_schema(case: Case) -> None:
    if not case.schemas:
        pytest.skip("answers in quotations only")
    completion = await whole(case.provider, replace(ASK, response_schema=SCHEMA, max_tokens=200))
    answer = json.loads(completion.text)
    assert set(answer) == {"unit", "urgent"}
    assert answer["unit"] in {"day", "week"}
    assert isinstance(answer["urgent"], bool)


async def test_a_tool_is_called_by_name_with_whole_arguments(case: Case) -> None:
    if not case.tools:
        pytest.skip("calls no tools")
    completion = await whole(case.provider, replace(ASK, tools=(TOOL,)))
    assert completion.tool_calls == (CALLED,)
    assert completion.finish_reason == "tool_calls"


async def test_a_turn_with_tools_in_it_can_be_gone_on_from(case: Case) -> None:
    turns = (*ASK.messages, Message("assistant", "", tool_calls=(CALLED,)), Message("tool", "7", tool_call_id="call_1"))
    assert (await whole(case.provider, replace(ASK, messages=turns))).text


async def test_every_failure_of_the_upstream_is_of_its_kind(case: Case) -> None:
    for request, kind in case.failures:
        with pytest.raises(UpstreamError) as raised:
            await whole(case.provider, request)
        assert type(raised.value) is kind
    assert (await whole(case.provider)).text, "a failure spoils nothing"


async def test_closing_ends_the_calls_in_flight(case: Case) -> None:
    if case.working is None:
        pytest.skip("works in one piece and has no upstream")
    stream = case.provider.stream(LONG)
    await anext(stream)
    await case.provider.close()
    with pytest.raises(UpstreamError):
        async for _ in stream:
            pass


async def test_a_closed_provider_refuses_and_may_be_closed_again(case: Case) -> None:
    await whole(case.provider)
    await case.provider.close()
    with pytest.raises(UpstreamError):
        await whole(case.provider)
    await case.provider.close()
