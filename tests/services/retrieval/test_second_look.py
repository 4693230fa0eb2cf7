"""Several wordings of a question, and a second reader that is wrong, late or away."""

from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.explain import explain
from app.services.retrieval.library import Library
from app.services.retrieval.look import Found
from app.services.retrieval.merge import merge
from app.services.retrieval.query import Query
from graphs.errors import Forbidden, Invalid, QuotaExhausted, UpstreamError
from graphs.policy import LIMIT_VARIANTS, Fusion
from tests.services.retrieval.entries import doc

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIDE, PILOT, TUGS = "High tide is at six.", "The pilot boards at the buoy.", "Tugs wait inside."


class Reader:
    """Prefers the longest text, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        if self.error is not None:
            raise self.error
        return [len(text) / 100 for text in texts]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(tmp_path_factory: pytest.TempPathFactory, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(tmp_path_factory.mktemp("lance"), embedder)
    texts = {"tide": TIDE, "pilot": PILOT, "tugs": TUGS}
    await made.replace("acme", "notes", [await doc(embedder, name, text) for name, text in texts.items()])
    yield made
    await made.close()


async def looked(library: Library, text: str, reader: Reader | None = None, **wishes: object) -> Found:
    query = Query.checked(text, **wishes)  # type: ignore[arg-type]
    return await library.look("acme", "notes", query, named=lambda _: reader or Reader())


async def test_the_best_score_or_the_ranks_decide_over_several_wordings() -> None:
    rankings = [[("a", 0.9), ("b", 0.5)], [("b", 0.6), ("c", 0.4)]]
    assert merge(rankings, "best") == [("a", 0.9), ("b", 0.6), ("c", 0.4)]
    by_rank = merge(rankings, "rrf")
    assert [key for key, _ in by_rank] == ["b", "a", "c"]
    assert all(0 <= score <= 1 for _, score in by_rank)
    assert merge(rankings[:1], "rrf") == rankings[0]


@pytest.mark.parametrize("fusion", ["best", "rrf"])
async def test_a_passage_that_another_wording_finds_is_found_and_told(library: Library, fusion: Fusion) -> None:
    found = await looked(library, "tide", limit=2, variants=["where does the pilot board"], fusion=fusion)
    assert {passage.text for passage in found.passages} == {TIDE, PILOT}
    pilot = next(each for each in explain(found) if each.passage.text == PILOT)
    assert pilot.variant_ranks == (1,)


async def test_what_only_another_wording_found_has_its_own_cosine_and_no_rank(
    library: Library, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.retrieval.look.CANDIDATES", 1)
    found = await looked(library, "tide", limit=1, variants=["where does the pilot board"], diversity=0.1)
    pilot = next(each for each in explain(found) if each.passage.text == PILOT)
    vectors = await embedder.embed(["tide", PILOT])
    assert pilot.cosine == pytest.approx(float(vectors[0] @ vectors[1]), abs=1e-4)
    assert (pilot.vector_rank, pilot.text_rank, pilot.bm25) == (None, None, None)


async def test_no_more_variants_are_searched_than_a_search_may_have() -> None:
    with pytest.raises(Invalid) as caught:
        Query.checked("tide", variants=["x"] * (LIMIT_VARIANTS + 1))
    assert caught.value.field == "variants"


async def test_a_model_reads_the_best_again_and_is_named(library: Library) -> None:
    found = await looked(library, "tide", rerank="reader")
    assert found.passages[0].text == PILOT
    assert (found.retrieval.reranked_by, found.retrieval.not_reranked) == ("reader", "")


@pytest.mark.parametrize("error", [UpstreamError("away"), QuotaExhausted("spent"), Forbidden("switched off")])
async def test_a_model_that_fails_leaves_the_order_of_the_legs_and_is_told(library: Library, error: Exception) -> None:
    plain = await looked(library, "tide")
    found = await looked(library, "tide", Reader(error), rerank="reader")
    assert found.ranked.order == plain.ranked.order
    assert found.passages == plain.passages
    assert found.retrieval.reranked_by == ""
    assert str(error) in found.retrieval.not_reranked
