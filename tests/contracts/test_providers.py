"""What every model provider promises; run on each of them, the real local model among them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from aiohttp import web

from app.services.gateway.extractive import ExtractiveAnswerer
from app.services.gateway.llamacpp import LlamaCppProvider
from app.services.gateway.provider import Provider
from app.services.gateway.scripted import Say, ScriptedProvider
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import UpstreamError
from graphs.types import Completion, Delta, Message, ModelRequest, Passage
from tests.fake_openai import GREETING, chunk, events, fake_openai

ROTATION = "Rotate the owner key every ninety days. Old keys stay valid for one hour. Keep the new key in the vault."
QUESTION = "How often should the owner key be rotated?"
ASK = ModelRequest(
    messages=(Message("system", "You answer briefly."), Message("user", QUESTION)),
    max_tokens=40,
    question=QUESTION,
    grounding=(Passage("c1", "d1", "Keys", ROTATION, 0, len(ROTATION), 1.0, "handbook"),),
)
SCHEMA = {
    "type": "object",
    "properties": {"unit": {"enum": ["day", "week"]}, "urgent": {"type": "boolean"}},
    "required": ["unit", "urgent"],
    "additionalProperties": False,
}
SHAPED = '{"unit": "day", "urgent": false}'


@dataclass
class Case:
    """A provider and how a test sees its upstream. `working` tells whether the upstream still works on a call."""

    provider: Provider
    working: Callable[[], bool] | None = None
    schemas: bool = False


Opened = AbstractAsyncContextManager[Case]


@asynccontextmanager
async def scripted(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    asked = 0

    def answer(request: ModelRequest) -> Say:
        nonlocal asked
        asked += 1
        return Say((SHAPED,)) if request.response_schema else Say(("Every ", "ninety ", "days."))

    provider = ScriptedProvider(answer)
    yield Case(provider, lambda: asked > provider.closed_early, schemas=True)


@asynccontextmanager
async def openai(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    async def answer(request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        if "response_format" in body:
            await response.write(events(chunk(SHAPED), chunk(finish="stop")))
            return response
        for each in GREETING:
            await response.write(events(each, done=False))
            await asyncio.sleep(0.01)
        await response.write(events())
        return response

    async with fake_openai(answer) as fake:
        yield Case(fake.provider(), lambda: not fake.gone.is_set(), schemas=True)


@asynccontextmanager
async def llamacpp(_: MiniLmEmbedder) -> AsyncIterator[Case]:
    provider = await LlamaCppProvider.open(context_tokens=1_024, slots=1)
    yield Case(provider, lambda: provider.busy() > 0, schemas=True)


@asynccontextmanager
async def extractive(embedder: MiniLmEmbedder) -> AsyncIterator[Case]:
    yield Case(ExtractiveAnswerer(embedder))


@pytest.fixture(params=[scripted, openai, llamacpp, extractive], ids=lambda opened: opened.__name__)
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


@pytest.mark.parametrize("text", ["", "a", "Rotate the key.\n" * 50, "zwölf 鍵 🔑", "lone \ud800 surrogate"], ids=repr)
async def test_any_text_can_be_counted(case: Case, text: str) -> None:
    assert 0 <= case.provider.count_tokens(text) <= len(text.encode("utf-8", "replace")) + 1


@pytest.mark.parametrize("text", ["zwölf 鍵 🔑", "lone \ud800 surrogate", "\0", "data: [DONE]\n\n"], ids=repr)
async def test_any_text_can_be_asked(case: Case, text: str) -> None:
    completion = await whole(case.provider, replace(ASK, messages=(Message("user", text),), question=text))
    completion.text.encode()  # what comes back can be written away


async def left(provider: Provider) -> None:
    async with aclosing(provider.stream(ASK)) as stream:
        await anext(stream)


async def cancelled(provider: Provider) -> None:
    stream = provider.stream(ASK)
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


async def test_a_closed_provider_refuses_and_may_be_closed_again(case: Case) -> None:
    await whole(case.provider)
    await case.provider.close()
    with pytest.raises(UpstreamError):
        await whole(case.provider)
    await case.provider.close()
