"""Vectors over OpenAI's wire, and from llama.cpp's own server by it."""

import asyncio
from typing import Any

import orjson
import pytest

from app.services.gateway.llamacpp import LlamaCppEmbeddings
from app.services.gateway.provider import Embedded, Timeouts
from graphs.errors import (
    Invalid,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)
from graphs.types import Message, ModelRequest, Usage
from tests.fake_openai import KEY, Answer, drips, fake_openai, never, sends, sends_json

SHORT = Timeouts(connect_s=1.0, total_s=0.3)


def row(index: int, *vector: Any) -> dict[str, Any]:
    return {"object": "embedding", "index": index, "embedding": list(vector)}


def said(*rows: Any, **fields: Any) -> dict[str, Any]:
    """An answer as OpenAI sends it; `fields` are laid over its top level."""
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return {"object": "list", "data": list(rows), "model": "embed-test-2026", "usage": usage} | fields


TWO = (row(0, 1.0, 0), row(1, 0.5, -0.5))


async def embed(answer: Answer, **given: Any) -> Embedded:
    async with fake_openai(answer) as fake:
        provider = fake.embeddings(**given)
        try:
            return await provider.embed(["a", "b"])
        finally:
            await provider.close()


async def test_vectors_come_in_the_order_of_the_texts_whatever_the_order_they_are_sent_in() -> None:
    for rows in (TWO, TWO[::-1]):
        embedded = await embed(sends_json(said(*rows)))
        assert embedded == Embedded(((1.0, 0.0), (0.5, -0.5)), "embed-test", Usage(8), "embed-test-2026")


async def test_a_call_says_the_texts_the_servers_name_and_the_dimensions() -> None:
    async with fake_openai(sends_json(said(row(0, 1.0, 2.0)))) as fake:
        provider = fake.embeddings(served_name="text-embedding-3-small", dimensions=2)
        await provider.embed(["a\ud800"])
        await provider.close()
        assert fake.requests == [{"model": "text-embedding-3-small", "input": ["a\ufffd"], "dimensions": 2}]
        assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "usage", [None, {}, 8, {"prompt_tokens": -1}, {"prompt_tokens": "8"}, {"prompt_tokens": 1e308}]
)
async def test_r06_usage_that_cannot_be_true_is_counted_by_us_and_marked(usage: Any) -> None:
    assert (await embed(sends_json(said(*TWO, usage=usage)))).usage == Usage(2, estimated=True)


GARBAGE = {
    "nothing": said(),
    "too few": said(row(0, 1.0)),
    "too many": said(*TWO, row(2, 1.0, 2.0), row(1, 1.0)),
    "one twice": said(row(0, 1.0), row(0, 1.0)),
    "of two lengths": said(row(0, 1.0), row(1, 1.0, 2.0)),
    "empty": said(row(0), row(1)),
    "texts": said(row(0, "1"), row(1, "2")),
    "booleans": said(row(0, True), row(1, False)),
    "base64 that nobody asked for": said({"index": 0, "embedding": "AACAPw=="}, {"index": 1, "embedding": "AACAPw=="}),
    "an index that is none": said({"index": [0], "embedding": [1.0]}, row(1, 1.0)),
    "another shape": {"vectors": [[1.0], [2.0]]},
    "a list": [1.0],
    "an error in a 200": {"error": {"message": "no", "code": 500}},
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
async def test_u07_what_is_not_a_vector_for_each_text_is_an_error(body: Any) -> None:
    with pytest.raises(UpstreamError):
        await embed(sends_json(body))


async def test_vectors_of_another_size_than_configured_are_an_error() -> None:
    with pytest.raises(UpstreamError, match="3"):
        await embed(sends_json(said(*TWO)), dimensions=3)


BROKEN: dict[str, tuple[Answer, type[UpstreamError]]] = {
    "no head": (never, UpstreamTimeout),
    "a body without end": (drips(then=b" "), UpstreamTimeout),
    "cut": (sends(orjson.dumps(said(*TWO))[:40], kind="application/json"), UpstreamError),
    "broken off": (sends(b"{", kind="application/json", cut=True), UpstreamError),
    "a number that is none": (sends(b'{"data": [{"index": 0, "embedding": [NaN]}]}'), UpstreamError),
    "a page": (sends(b"<html>", kind="text/html"), UpstreamError),
    "a refused key": (sends_json({"error": {"code": "invalid_api_key"}}, status=401), UpstreamUnauthorized),
    "an unknown model": (sends_json({"error": {"code": "model_not_found"}}, status=404), UpstreamNotFound),
    "a rate limit": (sends_json({}, status=429, Retry_After="7"), UpstreamRateLimited),
    "too long": (sends_json({"error": {"message": "maximum context length is 8192"}}, status=400), UpstreamTooLong),
}


@pytest.mark.parametrize(("answer", "kind"), BROKEN.values(), ids=BROKEN.keys())
async def test_u05_every_failure_is_of_its_kind(answer: Answer, kind: type[UpstreamError]) -> None:
    with pytest.raises(UpstreamError) as raised:
        await embed(answer, timeouts=SHORT if kind is UpstreamTimeout else None)
    assert type(raised.value) is kind
    assert raised.value.retry_after_s == (7 if kind is UpstreamRateLimited else None)


async def test_cancelling_closes_the_upstream() -> None:
    async with fake_openai(never) as fake:
        provider = fake.embeddings()
        asking = asyncio.create_task(provider.embed(["a"]))
        await fake.asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(fake.gone.wait(), 5)
        await provider.close()


async def test_a_closed_model_embeds_nothing() -> None:
    async with fake_openai(never) as fake:
        provider = fake.embeddings()
        await provider.close()
        with pytest.raises(UpstreamError):
            await provider.embed(["a"])


async def test_a_gguf_embeds_in_this_process_and_answers_nobody() -> None:
    provider = await LlamaCppEmbeddings.open(gguf=None, name="vectors", context_tokens=256)
    embedded = await provider.embed(["Rotate the owner key.", "Rotate the key of the owner.", "zwölf 鍵 \ud800"])
    assert [len(vector) for vector in embedded.vectors] == [576] * 3
    assert (embedded.model, embedded.model_version) == ("vectors", "sha256:b179c9523d0e")
    assert embedded.usage.input_tokens > 10
    assert not embedded.usage.estimated
    with pytest.raises(UpstreamError):
        await provider.embed(["ship " * 400])
    with pytest.raises(Invalid):
        provider.stream(ModelRequest((Message("user", "hi"),)))
    await provider.close()
    with pytest.raises(UpstreamError):
        await provider.embed(["a"])
