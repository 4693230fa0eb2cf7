from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.services.ingest.ingest import Ingest
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.store.store import Store


@pytest.fixture
async def library(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(tmp_path / "lance", embedder)
    yield made
    await made.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}")
    yield made
    await made.close()


@pytest.fixture
def ingest(library: Library, embedder: MiniLmEmbedder, store: Store) -> Ingest:
    return Ingest(library, store.documents)
