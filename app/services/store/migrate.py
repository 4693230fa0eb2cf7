"""Brings a database to this version's schema, once, however many processes open it at the same time.

A migration is one transaction under a lock: on SQLite BEGIN EXCLUSIVE, on PostgreSQL an advisory lock. Who comes
second finds the work done. A database from a newer version is refused rather than guessed at.
"""

import sqlite3
import threading
import time
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

from app.services.store.vaults import allow_plain
from app.services.vault import Vault
from graphs.errors import PilothouseError

ALL_SEALED_SINCE: Final = "0160"  # an earlier schema holds contents in the clear
_DATABASE_LOCK: Final = 0x50494C4F54  # "PILOT"; any constant that no other program on the server uses
_ALEMBIC_LOCK: Final = threading.Lock()  # Alembic hands env.py its context through a global of the process


class SchemaTooNew(PilothouseError):
    """The database was written by a newer version of the product."""

    code = "schema_too_new"


def migrate(url: URL, busy_timeout_s: float, vault: Vault | None = None) -> None:
    """Blocking. `url` names the async driver; the same database is opened synchronously here. Raises SchemaTooNew."""
    with _ALEMBIC_LOCK:
        _migrate(url, busy_timeout_s, vault)


def _migrate(url: URL, busy_timeout_s: float, vault: Vault | None) -> None:
    sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(url.set(drivername="sqlite") if sqlite else url, poolclass=NullPool)
    if sqlite:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", lambda raw, _: _prepare(raw, busy_timeout_s))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN EXCLUSIVE"))
    with engine.begin() as connection:
        if not sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _DATABASE_LOCK})
        _upgrade(connection, vault)
    if sqlite:
        _use_wal(str(url.database), busy_timeout_s)


def script_config() -> Config:
    """Alembic's configuration, without a file: everything is in the package."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _upgrade(connection: Connection, vault: Vault | None) -> None:
    config = script_config()
    known = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current == known.get_current_head():
        return
    if current is not None and current not in {script.revision for script in known.walk_revisions()}:
        raise SchemaTooNew(f"the database has schema {current}, newer than this version's {known.get_current_head()}")
    config.attributes["connection"] = connection
    holds_plain = current is not None and current < ALL_SEALED_SINCE
    command.upgrade(config, "head")
    if holds_plain and vault is not None:
        allow_plain(connection, vault)


def _prepare(raw: Any, busy_timeout_s: float) -> None:
    raw.isolation_level = None
    raw.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}")


def _use_wal(path: str, busy_timeout_s: float) -> None:
    """Readers and the writer stop waiting for each other. The change itself wants the file alone, and SQLite may
    answer "locked" at once instead of waiting for that, so the wait is here."""
    deadline = time.monotonic() + busy_timeout_s
    connection = sqlite3.connect(path, timeout=busy_timeout_s)
    try:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return
    finally:
        connection.close()
