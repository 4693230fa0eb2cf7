from collections.abc import Iterator

import pytest

from app.services.retrieval.embedder import MiniLmEmbedder


@pytest.fixture(scope="session")
def embedder() -> Iterator[MiniLmEmbedder]:
    made = MiniLmEmbedder()
    yield made
    made.close()
