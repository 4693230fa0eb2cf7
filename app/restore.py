"""Puts a backup in the place of an installation that does not run.

Everything is copied beside the home and checked there; what was in the way is moved aside, never deleted, and no file
of the backup is changed. Runs and jobs that were in flight are ended or taken up by the server's next start.
"""

import os
import shutil
import sqlite3
import tempfile
from asyncio import to_thread
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from alembic.script import ScriptDirectory

from app.at_work import is_at_rest
from app.backup import STORE
from app.buckets import Bucket
from app.manifest import BackupDamaged, Manifest, copied
from app.sealing import KEY_FILE, open_vault, vault_of
from app.services.retrieval.strays import Name, compared
from app.services.store.migrate import SchemaTooNew, script_config
from app.services.store.vaults import check_proofs, proofs_in
from app.services.vault import VaultKeyMissing
from app.settings import Settings
from graphs.errors import Conflict, Invalid, PilothouseError

_TRACES: Final = ("mlflow.db", "mlflow.db-wal", "mlflow.db-shm", "artifacts")


class RestoreFailed(PilothouseError):
    """The disk did not give or take what the restore needs; the message says what was moved already."""

    code = "restore_failed"


@dataclass(frozen=True, slots=True)
class Restored:
    """`aside` is what was in the way. Of the documents that the index holds and the store does not list, `erased` are
    gone and `unlisted` are still found; `lacking` names those that it lists and the index does not hold."""

    manifest: Manifest
    aside: tuple[Path, ...]
    erased: int
    unlisted: int
    lacking: tuple[Name, ...]


async def restore(settings: Settings, folder: Path, *, force: bool = False, erase_unlisted: bool = False) -> Restored:
    """An index in a bucket may be newer than the backup: what it holds since is erased only by `erase_unlisted`.

    Raises Missing, Invalid, BackupDamaged, SchemaTooNew, VaultKeyMissing, VaultKeyWrong, Conflict for what is in the
    way, RestoreFailed, and for a bucket what `Bucket.check` does.
    """
    manifest = Manifest.read(folder)
    _check_schema(manifest)
    home, mlruns = _free(settings, manifest, force)
    try:
        stage = Path(tempfile.mkdtemp(prefix=f".{home.name}.restoring-", dir=home.parent))
        try:
            await to_thread(_checked_copies, manifest, folder, stage)
            if STORE in manifest.files:
                _bring_keys(settings, stage, home)
            index: Path | Bucket = stage / "home" / "lance"
            if settings.storage_url is not None:
                index = Bucket.at(settings.storage_url, settings.storage_endpoint_url)
            erases = erase_unlisted or isinstance(index, Path)
            unlisted, lacking = 0, list[Name]()
            if STORE in manifest.files:
                unlisted, lacking = await compared(index, _listed(stage), erase=erases)
            aside = _swap(stage, home, mlruns)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    except (OSError, sqlite3.Error) as error:
        raise RestoreFailed(f"the backup was not restored: {error}") from error
    erased, unlisted = (unlisted, 0) if erases else (0, unlisted)
    return Restored(manifest, tuple(aside), erased, unlisted, tuple(lacking))


def _check_schema(manifest: Manifest) -> None:
    known = ScriptDirectory.from_config(script_config())
    if manifest.schema is not None and manifest.schema not in {script.revision for script in known.walk_revisions()}:
        head = known.get_current_head()
        raise SchemaTooNew(f"the backup has schema {manifest.schema}, newer than this version's {head}")


def _free(settings: Settings, manifest: Manifest, force: bool) -> tuple[Path, Path]:
    """Where the home and MLflow's files go."""
    if STORE in manifest.files and settings.database_url is not None:
        raise Invalid("the backup's store goes into the home; unset PILOTHOUSE_DATABASE_URL")
    if settings.storage_url is not None and any(name.startswith("home/lance/") for name in manifest.files):
        raise Invalid("the backup's index goes into the home; unset PILOTHOUSE_STORAGE_URL")
    home, mlruns = settings.home.resolve(), settings.mlruns.resolve()
    occupied = [path for path in (home, *_traces_in(mlruns, manifest)) if _is_occupied(path)]
    if occupied and not force:
        raise Conflict(f"{occupied[0]} holds something; --force moves it aside")
    if not is_at_rest(home):
        raise Conflict(f"a server or a command is at work in {home}; stop it first")
    home.parent.mkdir(parents=True, exist_ok=True)
    return home, mlruns


def _traces_in(mlruns: Path, manifest: Manifest) -> list[Path]:
    if not any(name.startswith("mlruns/") for name in manifest.files):
        return []
    return [mlruns / name for name in _TRACES]


def _is_occupied(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _checked_copies(manifest: Manifest, folder: Path, stage: Path) -> None:
    """All files, each with the hash that the manifest names. Raises BackupDamaged."""
    (stage / "home").mkdir(mode=0o700)
    for name, held in manifest.files.items():
        path = folder / name
        if not path.is_file() or path.is_symlink():
            raise BackupDamaged(f"{name} is not in the backup")
        if copied(path, stage / name) != held:
            raise BackupDamaged(f"{name} is not the file that was backed up")


def _bring_keys(settings: Settings, stage: Path, home: Path) -> None:
    """See to it that what comes back can be read: by the keys of the settings, the backup's own, or those in the home
    that it replaces. Raises VaultKeyMissing, VaultKeyWrong, before anything was moved."""
    if not (proofs := proofs_in(stage / STORE)):
        return
    staged, here = stage / "home" / KEY_FILE, home / KEY_FILE
    if settings.encryption_keys is not None or settings.encryption_keys_file is not None:
        check_proofs(open_vault(settings), proofs)
        return
    if not staged.is_file() and here.is_file():
        copied(here, staged)
    if not staged.is_file():
        raise VaultKeyMissing(
            f"the backup's contents are sealed with {', '.join(map(repr, proofs))} and it was made without its keys; "
            f"name the {KEY_FILE} that you kept by PILOTHOUSE_ENCRYPTION_KEYS_FILE, or set PILOTHOUSE_ENCRYPTION_KEYS"
        )
    check_proofs(vault_of({"keys_file": str(staged)}), proofs)


def _listed(stage: Path) -> list[Name]:
    with closing(sqlite3.connect(stage / STORE)) as connection:
        return connection.execute("SELECT tenant_id, collection, document_id FROM documents").fetchall()


def _swap(stage: Path, home: Path, mlruns: Path) -> list[Path]:
    """Put the copies in place; what was there gets a new name beside it."""
    suffix, aside = f".before-{datetime.now(UTC):%Y%m%dT%H%M%SZ}", list[Path]()
    pairs = [(stage / "home", home)]
    if mlruns.is_relative_to(home):
        if (stage / "mlruns").exists():
            shutil.move(stage / "mlruns", stage / "home" / mlruns.relative_to(home))
    elif (stage / "mlruns").exists():
        mlruns.mkdir(parents=True, exist_ok=True)
        pairs += [(stage / "mlruns" / name, mlruns / name) for name in _TRACES]
    for new, place in pairs:
        if _is_occupied(place):
            aside.append(place.with_name(place.name + suffix))
            os.rename(place, aside[-1])
        if new.exists():
            if place.is_dir():
                place.rmdir()  # it is empty
            shutil.move(new, place)
    return aside
