"""What all tests share: a quiet environment, set before any library is imported, and the real embedder."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from app.settings import quiet_libraries

if TYPE_CHECKING:
    from app.services.retrieval.embedder import MiniLmEmbedder

pytest_plugins = ("tests.apportion", "tests.databases", "tests.buckets")

quiet_libraries()
# A deadline would assert a time, on machines that others use too.
settings.register_profile("pilothouse", deadline=None)
settings.load_profile("pilothouse")
DATASETS = os.environ.get("PILOTHOUSE_DATASETS")  # a folder of public data that is not ours to ship
for name in [name for name in os.environ if name.startswith("PILOTHOUSE_")]:
    del os.environ[name]


@pytest.fixture(scope="session")
def embedder() -> Iterator["MiniLmEmbedder"]:
    from app.services.retrieval.embedder import MiniLmEmbedder

    model = MiniLmEmbedder()
    yield model
    model.close()


@pytest.fixture
def datasets() -> Path:
    """Where public data lies; what needs it is skipped elsewhere."""
    if DATASETS is None or not Path(DATASETS).is_dir():
        pytest.skip("$PILOTHOUSE_DATASETS names no folder of public data")
    return Path(DATASETS)
