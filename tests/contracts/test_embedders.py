"""What every Embedder promises; run on each implementation."""

from collections.abc import Iterator

import numpy as np
import pytest

from app.services.retrieval.embedder import Embedder, MiniLmEmbedder

TEXTS = [
    "Rotate the owner key every quarter.",
    "",
    "x" * 20_000,
    "lone \ud800 surrogate",
    "zwölf Boxkämpfer",
    "鍵を回す",
]


@pytest.fixture(scope="module", params=[MiniLmEmbedder], ids=["minilm"])
def embedder(request: pytest.FixtureRequest) -> Iterator[Embedder]:
    made = request.param()
    yield made
    made.close()


async def test_every_string_gets_a_unit_vector_in_the_order_given(embedder: Embedder) -> None:
    vectors = await embedder.embed(TEXTS)
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        np.testing.assert_array_equal((await embedder.embed([text]))[0], vector)


async def test_a_vector_does_not_depend_on_its_neighbours(embedder: Embedder) -> None:
    texts = [f"{'provider outage and budget ' * (i % 7)} case {i}" for i in range(40)]
    together = await embedder.embed(texts)
    np.testing.assert_allclose(together[::-1], await embedder.embed(texts[::-1]), atol=1e-6)


async def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert (await embedder.embed([])).shape == (0, embedder.dimensions)


async def test_a_changed_result_does_not_change_what_is_remembered(embedder: Embedder) -> None:
    first = await embedder.embed(["a query"])
    first[:] = 0
    assert (await embedder.embed(["a query"])).any()


async def test_related_texts_are_closer_than_unrelated_ones(embedder: Embedder) -> None:
    key, credential, bread = await embedder.embed(["replace a secret key", "rotate a credential", "bake bread"])
    assert key @ credential > key @ bread


async def test_the_id_names_the_weights(embedder: Embedder) -> None:
    assert "@" in embedder.id
