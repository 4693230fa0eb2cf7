"""What all tests share: a quiet environment, set before any library is imported, and the real embedder."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from app.settings import quiet_libraries

if TYPE_CHECKING:
    from app.services.retrieval.embedder import MiniLmEmbedder

pytest_plugins = ("tests.databases",)

quiet_libraries()
# A deadline would assert a time, on machines that others use too.
settings.register_profile("pilothouse", deadline=None)
settings.load_profile("pilothouse")
for name in [name for name in os.environ if name.startswith("PILOTHOUSE_")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def embedder() -> Iterator["MiniLmEmbedder"]:
    from app.services.retrieval.embedder import MiniLmEmbedder

    model = MiniLmEmbedder()
    yield model
    model.close()
