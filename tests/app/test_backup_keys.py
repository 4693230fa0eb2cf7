"""Backups of contents that are sealed, and the keys that have to come with them."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from app.backup import back_up
from app.restore import restore
from app.sealing import KEY_FILE, new_key, open_vault
from app.services.store.store import Store
from app.services.vault import VaultKeyMissing, VaultKeyWrong
from app.settings import Settings
from tests.services.store.test_sealed import CANARY, fill


@pytest.fixture
async def settings(tmp_path: Path) -> Settings:
    made = Settings.offline(tmp_path / "var")
    made.home.mkdir()
    store = await Store.open(made.store_url, vault=open_vault(made))
    await fill(store, "acme", "r1")
    await store.close()
    return made


async def reads(settings: Settings) -> bool:
    store = await Store.open(settings.store_url, vault=open_vault(settings))
    said = (await store.runs.get("r1", "acme", None)).message
    await store.close()
    return said == CANARY


async def test_a_backup_with_secrets_brings_its_keys(settings: Settings, tmp_path: Path) -> None:
    await back_up(settings, tmp_path / "copy", with_secrets=True)
    other = Settings.offline(tmp_path / "other")
    await restore(other, tmp_path / "copy")
    assert await reads(other)
    assert (other.home / KEY_FILE).stat().st_mode & 0o777 == 0o600


async def test_p04_a_backup_without_its_keys_is_not_put_back_where_they_are_missing(
    settings: Settings, tmp_path: Path
) -> None:
    await back_up(settings, tmp_path / "copy")
    assert b"canary" not in b"".join(path.read_bytes() for path in (tmp_path / "copy").rglob("*") if path.is_file())
    (key_id,) = open_vault(settings).keyring.key_ids
    other = Settings.offline(tmp_path / "other")
    with pytest.raises(VaultKeyMissing, match=f"{key_id}.*PILOTHOUSE_ENCRYPTION_KEYS_FILE"):
        await restore(other, tmp_path / "copy")
    assert not other.home.exists()
    with pytest.raises(VaultKeyMissing, match=key_id):
        foreign = Settings.offline(tmp_path / "other", encryption_keys=SecretStr(new_key().written()))
        await restore(foreign, tmp_path / "copy")
    with pytest.raises(VaultKeyWrong, match=key_id):
        secret = new_key().written().partition(":")[2]
        await restore(
            Settings.offline(tmp_path / "other", encryption_keys=SecretStr(f"{key_id}:{secret}")), tmp_path / "copy"
        )
    kept = Settings.offline(tmp_path / "other", encryption_keys_file=settings.home / KEY_FILE)
    await restore(kept, tmp_path / "copy")
    assert await reads(kept)


async def test_a_home_that_is_put_back_keeps_its_keys(settings: Settings, tmp_path: Path) -> None:
    await back_up(settings, tmp_path / "copy")
    await restore(settings, tmp_path / "copy", force=True)
    assert await reads(settings)
