"""Re-ranking through the gateway, from a server that is right, slow, wrong or gone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.services.gateway.embedding import embedding_info
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.provider import Reranked, Timeouts
from app.services.gateway.rerank_http import HttpReranker
from app.services.gateway.scripted import SCRIPTED, ScriptedProvider
from app.services.gateway.server import ModelServer
from graphs.errors import Invalid, UpstreamError, UpstreamRateLimited, UpstreamTimeout, UpstreamUnauthorized
from graphs.types import Message, ModelRequest, Usage
from tests.fake_openai import KEY, Answer, FakeServer, drips, never, sends, sends_json, serving
from tests.services.gateway.test_embedding import ACME, Books, gateway

TEXTS = ["one", "two"]
GOOD = {"results": [{"index": 1, "relevance_score": 0.9}, {"index": 0, "relevance_score": 0.2}]}


@asynccontextmanager
async def reader(answer: Answer, **given: Any) -> AsyncIterator[tuple[FakeServer, HttpReranker]]:
    async with serving(FakeServer(answer), "/v1/rerank") as fake:
        server = ModelServer(f"{fake.url}/v1", KEY, Timeouts(connect_s=1.0, total_s=0.3))
        model = HttpReranker(embedding_info("reader", "test", 512), server, **given)
        try:
            yield fake, model
        finally:
            await model.close()


async def read(answer: Answer, **given: Any) -> Reranked:
    async with reader(answer, **given) as (_, model):
        return await model.rerank("which", TEXTS)


async def test_scores_come_in_the_order_of_the_texts_whatever_the_order_they_are_sent_in() -> None:
    async with reader(sends_json(GOOD), served_name="bge") as (fake, model):
        assert (await model.rerank("which\ud800", TEXTS)).scores == (0.2, 0.9)
    assert fake.requests == [{"model": "bge", "query": "which\ufffd", "documents": TEXTS, "top_n": 2}]
    assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_text_embeddings_inference_is_asked_and_read_in_its_own_words() -> None:
    async with reader(sends_json([{"index": 0, "score": 0.1}, {"index": 1, "score": 0.4}]), tei=True) as (fake, model):
        assert (await model.rerank("which", TEXTS)).scores == (0.1, 0.4)
    assert fake.requests == [{"query": "which", "texts": TEXTS, "truncate": True}]


async def test_logits_become_shares_in_the_same_order() -> None:
    said = {"results": [{"index": 0, "relevance_score": -900.0}, {"index": 1, "relevance_score": 3.0}]}
    low, high = (await read(sends_json(said))).scores
    assert 0 <= low < high <= 1


async def test_tokens_are_the_servers_where_it_counts_them_and_else_an_estimate() -> None:
    assert (await read(sends_json(GOOD | {"usage": {"total_tokens": 21}}))).usage == Usage(21)
    assert (await read(sends_json(GOOD))).usage.estimated


def rows(*rows: Any) -> Answer:
    return sends_json({"results": list(rows)})


ONE = {"index": 0, "relevance_score": 0.5}
WRONG: dict[str, tuple[Answer, type[UpstreamError]]] = {
    "an index beyond the texts": (rows(ONE, {"index": 2, "relevance_score": 0.1}), UpstreamError),
    "an index below zero": (rows(ONE, {"index": -1, "relevance_score": 0.1}), UpstreamError),
    "an index that is a truth value": (rows(ONE, {"index": True, "relevance_score": 0.1}), UpstreamError),
    "an index twice": (rows(ONE, ONE), UpstreamError),
    "a text without a score": (rows(ONE), UpstreamError),
    "NaN": (sends(b'{"results": [{"index": 0, "relevance_score": NaN}]}'), UpstreamError),
    "a score that is no number": (rows(ONE, {"index": 1, "relevance_score": "0.3"}), UpstreamError),
    "an infinite score": (sends(b'{"results": [{"index": 0, "relevance_score": 1e999}]}'), UpstreamError),
    "a row that is none": (rows(ONE, 7), UpstreamError),
    "no results": (sends_json({"data": []}), UpstreamError),
    "no JSON": (sends(b"<html>"), UpstreamError),
    "a failing server": (sends_json({"message": "boom"}, status=500), UpstreamError),
    "a busy server": (sends_json({}, status=429), UpstreamRateLimited),
    "a refused key": (sends_json({}, status=401), UpstreamUnauthorized),
    "a cut connection": (sends(b'{"results": [', cut=True), UpstreamError),
    "a server without an answer": (never, UpstreamTimeout),
    "a dripping server": (drips(b"{", then=b" "), UpstreamTimeout),
}


@pytest.mark.parametrize("case", WRONG)
async def test_v02_an_answer_that_orders_nothing_is_an_error_and_never_an_order(case: str) -> None:
    answer, error = WRONG[case]
    with pytest.raises(error) as caught:
        await read(answer)
    assert KEY not in caught.value.message


async def test_a_call_is_reserved_billed_and_tried_again_as_every_other() -> None:
    answers = [sends_json({}, status=500), sends_json(GOOD | {"usage": {"total_tokens": 50}})]

    async def first_fails(request: Any, body: dict[str, Any]) -> Any:
        return await answers.pop(0)(request, body)

    books = Books()
    async with reader(first_fails) as (_, model):
        reranked = await gateway(model, books=books).rerank("which", TEXTS, "reader", ACME)
    assert reranked.scores == (0.2, 0.9)
    assert [(charge.task, charge.attempt) for charge in books.charges] == [("rerank", 1), ("rerank", 2)]
    assert [(bill.outcome, bill.cost_micros) for bill in books.bills] == [("failed", 0), ("ok", 100)]


async def test_a_server_that_goes_on_failing_is_left_alone() -> None:
    async with reader(sends_json({}, status=500)) as (fake, model):
        door = gateway(model, retries=0)
        for _ in range(12):
            with pytest.raises(UpstreamError):
                await door.rerank("which", TEXTS, "reader")
    assert len(fake.requests) == 10  # the breaker's least number of calls


async def test_a_slow_server_is_given_up_in_the_routes_time() -> None:
    async with reader(never) as (fake, model):
        with pytest.raises(UpstreamTimeout):
            await gateway(model, retries=0, timeout_s=0.05).rerank("which", TEXTS, "reader")
    assert fake.gone.is_set() or fake.asked.is_set()


async def test_only_a_re_rank_model_re_ranks_and_it_does_nothing_else() -> None:
    async with reader(sends_json(GOOD)) as (_, model):
        door: ModelGateway = gateway(ScriptedProvider(["hi"]), model)
        with pytest.raises(Invalid, match="does not re-rank"):
            await door.rerank("which", TEXTS, SCRIPTED.name)
        with pytest.raises(Invalid, match="re-ranks texts and does not answer"):
            await door.complete(ModelRequest((Message("user", "hi"),), model="reader"))
        with pytest.raises(Invalid):
            await door.rerank("which", [], "reader")
        assert [info.name for info in door.models] == [SCRIPTED.name]
        assert door.router.reranks("reader")
        assert not door.router.reranks(SCRIPTED.name)
        assert not door.router.reranks("nobody")
