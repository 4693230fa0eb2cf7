"""A collection's golden questions: kept apart by tenant, bounded, and gone with the document they quote."""

from collections.abc import AsyncIterator

import pytest

from app.services.retrieval import golden as module
from app.services.retrieval.gate import Golden
from app.services.retrieval.golden import GoldenQuestions
from app.services.store.store import Store
from graphs.errors import Conflict, Missing

PILOT = Golden("where does the pilot board?", "harbour", "at the outer buoy")
FISH = Golden("what is cooked?", "menu")


@pytest.fixture
async def questions(store_url: str) -> AsyncIterator[GoldenQuestions]:
    store = await Store.open(store_url)
    yield GoldenQuestions(store.database)
    await store.close()


async def test_questions_are_kept_by_tenant_and_collection(questions: GoldenQuestions) -> None:
    first, second = await questions.add("acme", "notes", [PILOT, FISH])
    await questions.add("rival", "notes", [FISH])
    assert set(await questions.list("acme", "notes")) == {first, second}
    assert await questions.list("acme", "other") == []
    with pytest.raises(Missing):
        await questions.remove("rival", "notes", first.golden_id)
    await questions.remove("acme", "notes", first.golden_id)
    assert await questions.list("acme", "notes") == [second]


async def test_a_deleted_document_takes_its_questions_along(questions: GoldenQuestions) -> None:
    await questions.add("acme", "notes", [PILOT, FISH])
    await questions.forget_document("acme", "notes", "harbour")
    assert [each.document_id for each in await questions.list("acme", "notes")] == ["menu"]


async def test_a_collection_has_no_more_questions_than_the_gate_can_ask(
    questions: GoldenQuestions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUESTIONS", 3)
    await questions.add("acme", "notes", [PILOT, FISH])
    with pytest.raises(Conflict):
        await questions.add("acme", "notes", [PILOT, FISH])
    assert len(await questions.list("acme", "notes")) == 2
