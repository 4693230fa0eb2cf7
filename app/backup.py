"""Takes a copy of a whole installation while it is in use.

The index stands still while it is copied; at the end of that the databases are held at one moment and copied from
there. So every document that the copy's store lists is in the copy's index, but for what was half written at that
moment, which `app.restore` mends. Not covered: databases on servers, an index in a bucket, the environment, the
gateway's file, kept answers. Contents stay sealed: without the keys, which are copied only where that is asked for, a
backup is of no use.
"""

import asyncio
import json
import os
import platform
import resource
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from app.manifest import FORMAT, Held, Manifest, copied, measured
from app.sealing import KEY_FILE
from app.services.retrieval.standstill import Standstill
from app.settings import Settings
from graphs.errors import Conflict, Missing, PilothouseError

SECRETS: Final = ("owner.key", "session.secret", KEY_FILE)
STORE: Final = "home/pilothouse.db"
TRACES: Final = "mlruns/mlflow.db"
BUSY_S: Final = 30.0
_LIBRARIES: Final = ("lancedb", "langgraph", "dbos", "mlflow")


class BackupFailed(PilothouseError):
    """The disk or a database did not give or take what the backup needs."""

    code = "backup_failed"


async def back_up(settings: Settings, folder: Path, *, with_secrets: bool = False) -> Manifest:
    """Copy the installation into `folder`, which appears when all of it is there.

    Raises Missing where there is nothing to copy, Conflict for a folder that holds something, BackupFailed.
    """
    folder = _free(settings, folder)
    try:
        part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))
        try:
            manifest = await _copy(settings, part, with_secrets)
            _publish(manifest, part, folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        raise BackupFailed(f"the backup was not made: {error}") from error
    return manifest


def _free(settings: Settings, folder: Path) -> Path:
    home, folder = settings.home.resolve(), folder.resolve()
    if not home.is_dir():
        raise Missing(f"there is no installation in {home}")
    if folder.is_relative_to(home):
        raise Conflict(f"{folder} lies in the installation that is to be copied")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already; a backup makes its own folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def _publish(manifest: Manifest, part: Path, folder: Path) -> None:
    manifest.write(part)
    part.rename(folder)
    _sync(folder.parent)


async def _copy(settings: Settings, part: Path, with_secrets: bool) -> Manifest:
    home, taken_at = settings.home.resolve(), datetime.now(UTC)
    files = dict[str, Held]()
    databases = _databases(settings)
    with ExitStack() as pins:
        held: dict[str, sqlite3.Connection] | None = None
        # Each halted collection holds two open files, and there may be thousands of them.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if settings.storage_url is not None:  # the index is not copied, and none of its writers has to wait
            held = {name: pins.enter_context(_pinned(path)) for name, path in databases.items()}
        else:
            async with Standstill(home / "lance") as standstill:
                # A collection that is made meanwhile is written to already: then the databases are held anew after it.
                while (new := await standstill.halt()) or held is None:
                    for table in new:
                        async with standstill.untidied(table):
                            files |= await asyncio.to_thread(_tree, table, part, f"home/lance/{table.name}")
                    pins.close()
                    held = {name: pins.enter_context(_pinned(path)) for name, path in databases.items()}
        for name, source in held.items():
            files[name] = await asyncio.to_thread(_database, source, part / name)
    # After the store: a run that it calls exported is then in MLflow's copy, and one that it does not is sent again.
    files |= await asyncio.to_thread(_traces, settings, part)
    files |= await asyncio.to_thread(_tables, home / "tables", part)
    for name in ("scorecard.json", *(SECRETS if with_secrets else ())):
        if (home / name).is_file():
            files[f"home/{name}"] = copied(home / name, part / "home" / name)
    return Manifest(
        format=FORMAT,
        product=version("pilothouse"),
        schema=_schema(part / STORE) if STORE in files else None,
        taken_at=taken_at,
        libraries={"python": platform.python_version(), "sqlite": sqlite3.sqlite_version}
        | {name: version(name) for name in _LIBRARIES},
        not_covered=tuple(_on_servers(settings)),
        files=files,
    )


def _databases(settings: Settings) -> dict[str, Path]:
    """By their place in the backup, in the order in which they are held.

    A run that waits has its checkpoint before its row, and a job its row before the engine has it, so that what the
    store speaks of is in what is held after it.
    """
    places = {
        STORE: sqlite_file(settings.store_url),
        # Where the store is on a server, so are the checkpoints, and a file of that name is left from before.
        "home/checkpoints.db": None if settings.store_is_shared else settings.home.resolve() / "checkpoints.db",
        "home/jobs.db": sqlite_file(settings.job_engine_url),
    }
    return {name: path for name, path in places.items() if path is not None and path.is_file()}


def sqlite_file(url: str) -> Path | None:
    """None for a database on a server."""
    parts = make_url(url) if "://" in url else None
    if parts is None or parts.get_backend_name() != "sqlite" or not parts.database:
        return None
    return Path(parts.database).resolve()


@contextmanager
def _pinned(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that sees the database as it is now, whatever is written later: a read in WAL mode."""
    with closing(sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        yield connection


def _database(source: sqlite3.Connection, target: Path) -> Held:
    target.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
        if (found := copy.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise BackupFailed(f"{target.name} is damaged: {found}")
    _sync(target)
    return measured(target)


def _traces(settings: Settings, part: Path) -> dict[str, Held]:
    """MLflow's runs and their files."""
    path, files = sqlite_file(settings.tracking_uri), dict[str, Held]()
    if path is not None and path.is_file():
        with closing(sqlite3.connect(path, timeout=BUSY_S)) as source:
            files[TRACES] = _database(source, part / TRACES)
    return files | _tree(settings.mlruns / "artifacts", part, "mlruns/artifacts")


def _tables(source: Path, part: Path) -> dict[str, Held]:
    """Uploaded tables: first what tells of them, then their rows. Raises OSError for one that is replaced meanwhile."""
    files, rows = dict[str, Held](), set[Path]()
    for path in sorted(source.glob("*/*.json")):
        place = f"home/tables/{path.relative_to(source).as_posix()}"
        files[place] = copied(path, part / place)
        rows.add(path.with_name(json.loads((part / place).read_text(encoding="utf-8"))["file"]))
    for path in sorted(rows):
        place = f"home/tables/{path.relative_to(source).as_posix()}"
        files[place] = copied(path, part / place)
    return files


def _tree(source: Path, part: Path, name: str) -> dict[str, Held]:
    files = dict[str, Held]()
    for path in sorted(source.rglob("*")):
        if path.is_file() and not path.is_symlink():
            place = f"{name}/{path.relative_to(source).as_posix()}"
            files[place] = copied(path, part / place)
    return files


def _on_servers(settings: Settings) -> list[str]:
    places = {
        "the store and the agents' checkpoints": (settings.store_url, "dump it with pg_dump before each backup"),
        "the jobs' engine": (settings.job_engine_url, "dump it with pg_dump too"),
        "MLflow's runs": (settings.tracking_uri, "back up its own server"),
    }
    found = [f"{what}: {advice}" for what, (url, advice) in places.items() if sqlite_file(url) is None]
    if settings.storage_url is not None:
        found.append(
            f"the index in {settings.storage_url}: copy the bucket after each backup, while nothing is taken in"
        )
    return found


def _schema(store: Path) -> str | None:
    with closing(sqlite3.connect(store)) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return None if row is None else str(row[0])


def _sync(path: Path) -> None:
    """Have the disk hold a file, or the names in a folder."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
