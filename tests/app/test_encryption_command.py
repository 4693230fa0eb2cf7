"""`pilothouse encryption`, as an operator types it."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli import app
from app.sealing import KEY_FILE, new_key, open_vault
from app.services.keyring import parse_keys
from app.services.store.store import Store
from app.settings import Settings
from tests.services.store.test_sealed import CANARY, fill


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PILOTHOUSE_HOME", str(tmp_path / "var"))
    (tmp_path / "var").mkdir()
    return tmp_path / "var"


async def filled(home: Path) -> None:
    settings = Settings.offline(home)
    store = await Store.open(settings.store_url, vault=open_vault(settings))
    await fill(store, "acme", "r1")
    await store.close()


async def said(home: Path) -> str:
    settings = Settings.offline(home)
    store = await Store.open(settings.store_url, vault=open_vault(settings))
    found = (await store.runs.get("r1", "acme", None)).message
    await store.close()
    return found


def told(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["encryption", *arguments])
    return done.exit_code, done.output + done.stderr


def test_p04_an_operator_changes_the_key_and_may_drop_the_old_one(home: Path) -> None:
    asyncio.run(filled(home))
    (old,) = parse_keys((home / KEY_FILE).read_text())
    code, status = told("status")
    assert (code, f"sealing with {old.key_id}" in status) == (0, True)
    assert "0 rows and values" in status
    code, rotated = told("rotate")
    assert code == 0, rotated
    assert " of " not in rotated.partition(" rows and ")[0]
    new, kept = parse_keys((home / KEY_FILE).read_text())
    assert kept == old
    assert f"Keep {old.key_id} as long as backups from before" in " ".join(rotated.split())
    (home / KEY_FILE).write_text(new.written())
    assert asyncio.run(said(home)) == CANARY
    for secret in (old.written(), new.written()):
        assert secret.partition(":")[2] not in status + rotated


def test_p04_a_wrong_key_ends_every_command_with_one_line_that_names_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(filled(home))
    (old,) = parse_keys((home / KEY_FILE).read_text())
    monkeypatch.setenv("PILOTHOUSE_ENCRYPTION_KEYS", new_key().written())
    code, status = told("status")
    assert code == 1
    assert "encryption_key_missing" in status
    assert old.key_id in status
    monkeypatch.setenv("PILOTHOUSE_ENCRYPTION_KEYS", f"{new_key().written()},{old.written()}")
    code, refused = told("rotate")
    assert (code, "--same-key" in refused) == (1, True)
    assert told("rotate", "--same-key")[0] == 0
