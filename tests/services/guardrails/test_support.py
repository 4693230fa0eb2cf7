import pytest

from app.services.guardrails.guard import PatternGuard
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.types import Passage

KEYS = """Keys are stored as SHA-256 hashes.
A key expires after 90 days unless another time was set. Revoked keys stop at once."""
WEATHER = "Rain is expected over the coast. Winds turn to the north by Friday."


def passage(text: str) -> Passage:
    return Passage("c", "d", "Title", text, 0, len(text), 1.0, "handbook")


@pytest.fixture
def guard(embedder: MiniLmEmbedder) -> PatternGuard:
    return PatternGuard(embedder)


async def test_a_verbatim_sentence_is_supported_in_full(guard: PatternGuard) -> None:
    scores = await guard.support(
        ["A key expires after 90 days unless another time was set."], [passage(KEYS), passage(WEATHER)]
    )
    assert scores[0][0] == 1.0
    assert scores[0][1] < guard.support_threshold


async def test_layout_does_not_break_a_quote(guard: PatternGuard) -> None:
    ((score,),) = await guard.support(["Keys are stored as SHA-256 hashes. A key expires"], [passage(KEYS)])
    assert score == 1.0


async def test_a_changed_number_costs_more_than_left_out_words(guard: PatternGuard) -> None:
    (shortened,), (altered,) = await guard.support(
        ["A key expires after 90 days.", "A key expires after 30 days."], [passage(KEYS)]
    )
    assert altered < guard.support_threshold < shortened


async def test_empty_sides_give_no_support(guard: PatternGuard) -> None:
    assert await guard.support([], [passage(KEYS)]) == []
    assert await guard.support(["A key expires."], []) == [[]]
    assert await guard.support(["The.", "A key expires."], [passage("")]) == [[0.0], [0.0]]


async def test_passages_are_embedded_once(embedder: MiniLmEmbedder) -> None:
    asked: list[int] = []

    class Counting:
        async def embed(self, texts):  # type: ignore[no-untyped-def]
            asked.append(len(texts))
            return await embedder.embed(texts)

    guard = PatternGuard(Counting())
    for _ in range(2):
        await guard.support(["A key expires.", "Rain is expected."], [passage(KEYS), passage(WEATHER)])
    assert asked == [2 + 5, 2]
