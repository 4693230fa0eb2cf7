"""What stands between the legs and the passages shown: order, diversity, neighbours, second readings, reasons."""

from collections.abc import AsyncIterator

import numpy as np
import pytest
import pytest_asyncio

from app.services.retrieval.diversify import diversify
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.explain import explain
from app.services.retrieval.fuse import DENSE_WEIGHT, UNREAD_DENSE_WEIGHT, fuse
from app.services.retrieval.library import Library
from app.services.retrieval.look import Found
from app.services.retrieval.query import Query
from app.services.retrieval.rerank import max_sim
from graphs.errors import Invalid
from tests.services.retrieval.entries import doc

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIDES = [
    "The harbour opens at dawn.",
    "High tide is at six in the morning.",
    "Low tide is at noon.",
    "Tugs wait inside.",
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def library(tmp_path_factory: pytest.TempPathFactory, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(tmp_path_factory.mktemp("lance"), embedder)
    copies = [await doc(embedder, f"copy{number}", "The pilot boards at the outer buoy.") for number in range(3)]
    other = await doc(embedder, "other", "A pilot needs a licence of the port.")
    await made.replace("acme", "notes", [await doc(embedder, "tides", TIDES), *copies, other])
    yield made
    await made.close()


async def looked(library: Library, text: str, **wishes: object) -> Found:
    return await library.look("acme", "notes", Query.checked(text, **wishes))  # type: ignore[arg-type]


async def test_neighbours_follow_their_passage_in_the_documents_order(library: Library) -> None:
    found = await looked(library, "when is high tide", limit=1, neighbours=1)
    assert [passage.text for passage in found.passages] == [TIDES[1], TIDES[0], TIDES[2]]
    assert len({passage.score for passage in found.passages}) == 1
    assert len(explain(found)) == 8  # a neighbour is no candidate of its own making


async def test_a_neighbour_that_was_found_itself_comes_once(library: Library) -> None:
    found = await looked(library, "when is the tide high or low", limit=2, neighbours=3)
    assert sorted(passage.text for passage in found.passages) == sorted(TIDES)


async def test_diversity_lets_one_of_several_copies_through(library: Library) -> None:
    asked = "where does the pilot board"
    plain = [passage.document_id for passage in (await looked(library, asked, limit=3)).passages]
    assert all(name.startswith("copy") for name in plain)
    found = await looked(library, asked, limit=3, diversity=0.6)
    spread = [passage.document_id for passage in found.passages]
    assert sum(name.startswith("copy") for name in spread) == 1
    assert any("too like" in candidate.why_not for candidate in explain(found))


async def test_no_diversity_keeps_the_order_of_the_scores() -> None:
    vectors = np.eye(3, dtype=np.float32)
    assert diversify([0.9, 0.5, 0.7], vectors, diversity=0.0, limit=2) == [0, 2]
    assert diversify([], np.empty((0, 3), np.float32), diversity=0.5, limit=2) == []


async def test_a_second_reading_reorders_and_is_told(library: Library) -> None:
    found = await looked(library, "when is high tide", limit=2, rerank="maxsim")
    candidates = explain(found)
    assert all(candidate.reranked is not None for candidate in candidates)
    scores = [candidate.reranked for candidate in candidates]
    assert scores == sorted(scores, reverse=True, key=float)  # type: ignore[arg-type]
    assert found.passages[0].text == TIDES[1]


async def test_late_interaction_is_the_mean_of_each_tokens_best_match() -> None:
    asked = np.array([[1, 0], [0, 1]], np.float32)
    assert max_sim(asked, np.array([[1, 0], [0.6, 0.8]], np.float32)) == pytest.approx(0.9)
    assert max_sim(asked, np.empty((0, 2), np.float32)) == 0.0


async def test_every_candidate_has_the_scores_of_both_legs_and_a_reason(library: Library) -> None:
    found = await looked(library, "high tide", limit=1)
    shown, *others = explain(found)
    assert (shown.rank, shown.why_not) == (1, "")
    assert shown.passage == found.passages[0]
    assert shown.bm25 is not None
    assert shown.text_rank == shown.vector_rank == shown.fused_rank == 1
    wordless = next(candidate for candidate in others if candidate.passage.document_id == "other")
    assert (wordless.bm25, wordless.text_rank) == (None, None)
    assert "shares no word" in wordless.why_not
    assert all(f"rank {candidate.rank};" in candidate.why_not for candidate in others)


@pytest.mark.parametrize(
    ("wish", "field"),
    [({"diversity": 1.5}, "diversity"), ({"diversity": -0.1}, "diversity"), ({"neighbours": 4}, "neighbours")],
)
async def test_an_impossible_wish_is_named(wish: dict[str, float], field: str) -> None:
    with pytest.raises(Invalid) as caught:
        Query.checked("key", **wish)  # type: ignore[arg-type]
    assert caught.value.field == field


async def test_a_reranker_that_the_embedder_cannot_give_is_refused(library: Library, embedder: MiniLmEmbedder) -> None:
    class Plain:
        id, dimensions, embed = embedder.id, embedder.dimensions, embedder.embed

    plain = Library(library.shelf, Plain(), library.embedders)
    with pytest.raises(Invalid) as caught:
        await plain.look("acme", "notes", Query.checked("key", rerank="maxsim"))
    assert caught.value.field == "rerank"


async def test_words_weigh_more_for_a_question_in_a_script_that_the_embedder_cannot_read(library: Library) -> None:
    read = await looked(library, "where does the pilot board")
    unread = await looked(library, "лоцман где pilot")
    for found, weight in ((read, DENSE_WEIGHT), (unread, UNREAD_DENSE_WEIGHT)):
        assert found.ranked.fused == fuse(found.legs.cosines, found.legs.bm25, dense_weight=weight)
