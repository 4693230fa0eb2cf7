"""`pilothouse backup` and `pilothouse restore` over an installation at rest: what they take, and what they refuse."""

import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.at_work import at_work
from app.backup import back_up
from app.manifest import BackupDamaged
from app.restore import restore
from app.services.ingest.ingest import Ingest
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.store.migrate import SchemaTooNew
from app.services.store.store import Store
from app.services.tables.shelf import TableShelf
from app.settings import Settings
from app.sight import EVERYTHING, OPEN
from graphs.errors import Conflict, Invalid, Missing


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "var"


@pytest.fixture
async def settings(home: Path, embedder: MiniLmEmbedder) -> Settings:
    """An installation with two documents, of which one is half removed and another was half taken in."""
    made = Settings.offline(home)
    store = await Store.open(made.store_url)
    library = await Library.open(home / "lance", embedder)
    ingest = Ingest(library, store.documents)
    for name in ("whole", "unindexed", "unlisted"):
        await ingest.add("acme", "guide", name, f"The {name} page.", filename="a.txt")
    await library.remove("acme", "guide", "unindexed")
    await store.documents.delete("acme", "guide", "unlisted")
    await library.close()
    await store.close()
    for name in ("owner.key", "session.secret"):
        os.close(os.open(home / name, os.O_CREAT | os.O_WRONLY, 0o600))
    (home / "mlruns" / "artifacts").mkdir(parents=True)
    (home / "mlruns" / "artifacts" / "trace.json").write_text("{}")
    return made


@pytest.fixture
def other(tmp_path: Path) -> Settings:
    return Settings.offline(tmp_path / "other")


async def test_uploaded_tables_come_back_with_their_rows(
    settings: Settings, other: Settings, home: Path, tmp_path: Path
) -> None:
    made = TableShelf(home / "tables")
    await made.put("acme", "sales", b"city,sold\nBonn,3\n", "sales.csv", sight=EVERYTHING, now=datetime.now(UTC))
    (home / "tables" / "left").mkdir()  # of an upload that was killed
    await back_up(settings, tmp_path / "copy")
    await restore(other, tmp_path / "copy")
    again = TableShelf(other.home / "tables")
    found = await again.query("acme", OPEN, "SELECT sold FROM sales", max_rows=1, max_chars=100, wall_s=30)
    assert found.rows == (("3",),)


async def test_an_installation_comes_back_as_it_was(settings: Settings, other: Settings, tmp_path: Path) -> None:
    made = await back_up(settings, tmp_path / "copy")
    done = await restore(other, tmp_path / "copy")
    assert made.files == done.manifest.files
    assert (other.mlruns / "artifacts" / "trace.json").read_text() == "{}"
    store = await Store.open(other.store_url)
    assert await store.documents.text("acme", "guide", "whole") == "The whole page."
    await store.close()


async def test_what_was_half_written_is_mended_or_named(
    settings: Settings, other: Settings, tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    await back_up(settings, tmp_path / "copy")
    done = await restore(other, tmp_path / "copy")
    assert (done.erased, done.lacking) == (1, (("acme", "guide", "unindexed"),))
    library = await Library.open(other.home / "lance", embedder)
    found = await library.search("acme", "guide", "page")
    assert [passage.document_id for passage in found.passages] == ["whole"]
    await library.close()


async def test_secrets_are_copied_only_when_asked_for_and_stay_secret(
    settings: Settings, other: Settings, tmp_path: Path
) -> None:
    plain = await back_up(settings, tmp_path / "plain")
    assert not [name for name in plain.files if name.endswith((".key", ".secret"))]
    await back_up(settings, tmp_path / "full", with_secrets=True)
    await restore(other, tmp_path / "full")
    for folder in (tmp_path / "full" / "home", other.home):
        for name in ("owner.key", "session.secret", "pilothouse.db"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(other.home.stat().st_mode) == 0o700


@pytest.mark.parametrize("harm", ["changed", "cut", "gone", "linked"])
async def test_a_backup_with_another_file_is_refused_before_anything_is_touched(
    settings: Settings, tmp_path: Path, harm: str
) -> None:
    await back_up(settings, tmp_path / "copy")
    file = tmp_path / "copy" / "home" / "pilothouse.db"
    content = file.read_bytes()
    file.unlink()
    if harm == "linked":
        (tmp_path / "elsewhere").write_bytes(content)
        file.symlink_to(tmp_path / "elsewhere")
    elif harm != "gone":
        file.write_bytes(content[:-1] + (b"" if harm == "cut" else b"?"))
    before = sorted(settings.home.rglob("*"))
    with pytest.raises(BackupDamaged, match=r"pilothouse\.db"):
        await restore(settings, tmp_path / "copy", force=True)
    assert sorted(settings.home.rglob("*")) == before
    assert not [path for path in os.listdir(tmp_path) if path.startswith(".")]


async def test_a_home_that_holds_something_is_moved_aside_by_force_only(settings: Settings, tmp_path: Path) -> None:
    await back_up(settings, tmp_path / "copy")
    (settings.home / "mine.txt").write_text("kept")
    with pytest.raises(Conflict, match="--force"):
        await restore(settings, tmp_path / "copy")
    done = await restore(settings, tmp_path / "copy", force=True)
    (aside,) = done.aside
    assert (aside / "mine.txt").read_text() == "kept"
    assert not (settings.home / "mine.txt").exists()
    assert (tmp_path / "copy" / "home" / "pilothouse.db").is_file()


async def test_nothing_is_put_under_a_process_that_is_at_work(settings: Settings, tmp_path: Path) -> None:
    await back_up(settings, tmp_path / "copy")
    with at_work(settings.home), at_work(settings.home), pytest.raises(Conflict, match="at work"):
        await restore(settings, tmp_path / "copy", force=True)
    await restore(settings, tmp_path / "copy", force=True)


def _edited(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


async def test_backups_that_this_version_cannot_read_are_refused(
    settings: Settings, other: Settings, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    await back_up(settings, copy)
    escape = {"home/../../x": {"size_bytes": 0, "sha256": ""}}
    for changes, error in (
        ({"schema": "9999"}, SchemaTooNew),
        ({"format": 2}, Invalid),
        ({"files": escape}, Invalid),
        ({"files": {"/etc/x": escape["home/../../x"]}}, Invalid),
    ):
        kept = (copy / "manifest.json").read_text()
        _edited(copy, **changes)
        with pytest.raises(error):
            await restore(other, copy)
        (copy / "manifest.json").write_text(kept)
    (copy / "manifest.json").unlink()
    with pytest.raises(Missing, match="no whole backup"):
        await restore(other, copy)
    assert not other.home.exists()


async def test_a_backup_is_not_written_over_another_nor_into_what_it_copies(settings: Settings, tmp_path: Path) -> None:
    await back_up(settings, tmp_path / "copy")
    for folder in (tmp_path / "copy", settings.home / "copy"):
        with pytest.raises(Conflict):
            await back_up(settings, folder)


async def test_a_server_s_databases_are_named_as_not_covered(settings: Settings, tmp_path: Path) -> None:
    on_server = settings.model_copy(update={"database_url": "postgresql+psycopg://db/pilothouse"})
    (settings.home / "checkpoints.db").touch()  # left from before it moved there
    made = await back_up(on_server, tmp_path / "copy")
    assert made.not_covered[0] == "the store and the agents' checkpoints: dump it with pg_dump before each backup"
    assert not [name for name in made.files if name.endswith(".db") and name.startswith("home/")]
    assert (made.schema, "home/pilothouse.db" in made.files) == (None, False)
    assert any(name.startswith("home/lance/") for name in made.files)
