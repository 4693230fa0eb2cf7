"""Vectors through the gateway: who may be asked for them, and what they cost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.config.price import Price
from app.config.schema import RouteConfig
from app.records import Bill, Charge, Payer
from app.services.breaker import Breaker, BreakerPolicy
from app.services.gateway.embedding import MAX_TEXTS, MINILM_NAME, Embeddings, MiniLmEmbeddings, embedding_info
from app.services.gateway.gateway import ModelGateway
from app.services.gateway.ports import OpenDesk
from app.services.gateway.provider import Embedded
from app.services.gateway.recover import Recovery
from app.services.gateway.retries import RetryBudget
from app.services.gateway.routes import Router, Target
from app.services.gateway.scripted import SCRIPTED, ScriptedProvider
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import Forbidden, Invalid, Missing, UpstreamError, UpstreamTimeout
from graphs.types import Message, ModelRequest, Usage

ACME = Payer("acme", "ann")
ASK = ModelRequest(messages=(Message("user", "Say hello"),))


class Hasty(Embeddings):
    """Gives vectors after the failures it was told of."""

    def __init__(self, *failures: Exception, name: str = "hasty", waits: bool = False) -> None:
        super().__init__(embedding_info(name, "test", 100))
        self.failures, self.waits = list(failures), waits

    def count_tokens(self, text: str) -> int:
        return len(text)

    async def embed(self, texts: Sequence[str]) -> Embedded:
        if self.waits:
            await asyncio.Event().wait()
        if self.failures:
            raise self.failures.pop(0)
        return Embedded(tuple((1.0, 0.0) for _ in texts), self.info.name, Usage(7), "v1")

    async def close(self) -> None:
        return None


@dataclass
class Books(OpenDesk):
    """Writes down every reservation and its bill."""

    models: frozenset[str] | None = None
    charges: list[Charge] = field(default_factory=list)
    bills: list[Bill] = field(default_factory=list)

    def allowed(self, payer: Payer) -> frozenset[str] | None:
        return self.models

    async def reserve(self, payer: Payer, charge: Charge, tokens: int) -> Any:
        self.charges.append(charge)
        books = self

        class Held:
            granted_micros = charge.wanted_micros

            async def recorded(self) -> None:
                return None

            async def settle(self, bill: Bill) -> None:
                books.bills.append(bill)

        return Held()


def gateway(*providers: Any, books: Books | None = None, **config: Any) -> ModelGateway:
    price = Price(2_000_000, 0, 2_000_000, 2_000_000, "config")
    targets = {each.info.name: Target(each.info.name, each, price, Breaker(BreakerPolicy())) for each in providers}
    plain = RouteConfig(candidates=("x",), **config)
    router = Router(targets, {}, members=lambda name: (name,), by_task={}, default=next(iter(targets)), plain=plain)

    async def at_once(_: float) -> None:
        return None

    recovery = Recovery(books or Books(), retries=RetryBudget(0.1, 10), sleep=at_once)  # type: ignore[arg-type]
    return ModelGateway(router, recovery)


async def test_the_embedded_model_serves_calls_that_name_none(embedder: MiniLmEmbedder) -> None:
    door = gateway(ScriptedProvider([]), MiniLmEmbeddings(embedder))
    embedded = await door.embed(["Rotate the key.", "", "zwölf 鍵 \ud800"])
    assert (embedded.model, embedded.model_version) == (MINILM_NAME, embedder.id)
    assert [len(vector) for vector in embedded.vectors] == [384] * 3
    assert embedded.vectors[0] == pytest.approx((await embedder.embed(["Rotate the key."]))[0].tolist())
    assert embedded.usage == Usage(sum(map(embedder.count_tokens, ["Rotate the key.", "", "zwölf 鍵 \ud800"])))


async def test_vectors_are_reserved_and_billed_by_their_input_alone() -> None:
    books = Books()
    await gateway(Hasty(), books=books).embed(["four", "five5"], "hasty", ACME)
    (charge,), (bill,) = books.charges, books.bills
    assert (charge.payer, charge.task, charge.prompt_tokens, charge.wanted_micros) == (ACME, "embedding", 9, 18)
    assert (bill.outcome, bill.usage, bill.cost_micros, bill.model_version) == ("ok", Usage(7), 14, "v1")


async def test_a_failure_that_passes_is_tried_again_and_each_attempt_booked() -> None:
    books = Books()
    embedded = await gateway(Hasty(UpstreamError("busy")), books=books).embed(["x"], "hasty", ACME)
    assert embedded.vectors == ((1.0, 0.0),)
    assert [(bill.outcome, bill.cost_micros) for bill in books.bills] == [("failed", 0), ("ok", 14)]


async def test_vectors_that_do_not_come_in_time_are_a_timeout() -> None:
    with pytest.raises(UpstreamTimeout):
        await gateway(Hasty(waits=True), timeout_s=0.05, retries=0).embed(["x"], "hasty")


async def test_a_caller_that_leaves_is_booked_as_cancelled() -> None:
    books = Books()
    door = gateway(Hasty(waits=True), books=books)
    asking = asyncio.create_task(door.embed(["x"], "hasty"))
    while not books.charges:
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await door.close()
    assert [bill.outcome for bill in books.bills] == ["cancelled"]


async def test_models_that_embed_and_models_that_answer_do_not_stand_in_for_each_other() -> None:
    books = Books()
    door = gateway(ScriptedProvider(["hi"]), Hasty(), books=books)
    with pytest.raises(Invalid, match="scripted does not embed") as raised:
        await door.embed(["x"], SCRIPTED.name)
    assert raised.value.field == "model"
    with pytest.raises(Invalid, match="hasty embeds texts and does not answer") as raised:
        await door.complete(ModelRequest(ASK.messages, model="hasty"))
    assert raised.value.field == "model"
    assert books.charges == [], "refused before anything is reserved"
    assert [info.name for info in door.models] == [SCRIPTED.name]
    with pytest.raises(Invalid):
        Hasty().stream(ASK)


async def test_an_unknown_or_ungranted_model_embeds_nothing() -> None:
    with pytest.raises(Missing):
        await gateway(Hasty()).embed(["x"])
    with pytest.raises(Forbidden):
        await gateway(Hasty(), books=Books(models=frozenset({"other"}))).embed(["x"], "hasty")


@pytest.mark.parametrize("texts", [[], ["x"] * (MAX_TEXTS + 1)], ids=len)
async def test_no_texts_or_too_many_are_refused(texts: list[str]) -> None:
    with pytest.raises(Invalid) as raised:
        await gateway(Hasty()).embed(texts, "hasty")
    assert raised.value.field == "input"


async def test_a_closed_model_embeds_nothing_and_leaves_the_embedder_open(embedder: MiniLmEmbedder) -> None:
    provider = MiniLmEmbeddings(embedder)
    await provider.close()
    await provider.close()
    with pytest.raises(UpstreamError):
        await provider.embed(["x"])
    assert len(await embedder.embed(["x"])) == 1
