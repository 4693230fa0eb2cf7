"""The keys of an installation's contents: from the settings, or from a file in its home that the first start makes.

Whoever has the file has the contents; whoever has lost it, and every copy, has lost them. Processes with homes of
their own on one PostgreSQL have to be given the same keys: the store lets no other one in.
"""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from app.services.access.secretfile import keep, replace
from app.services.keyring import KEY_BYTES, Key, Keyring, parse_keys
from app.services.vault import Vault
from app.settings import Settings
from graphs.errors import Invalid

KEY_FILE: Final = "encryption.keys"


def open_vault(settings: Settings) -> Vault:
    """Raises Invalid for keys that are none."""
    if settings.encryption_keys is None:
        if settings.encryption_keys_file is None:
            keep(key_file(settings), lambda: new_key().written())
        elif not settings.encryption_keys_file.is_file():
            raise Invalid(f"PILOTHOUSE_ENCRYPTION_KEYS_FILE names {settings.encryption_keys_file}, which is not there")
    return vault_of(vault_orders(settings))


def vault_orders(settings: Settings) -> Mapping[str, str]:
    """Where a child process finds the same keys; `vault_of` reads it."""
    if settings.encryption_keys is not None:
        return {"keys": settings.encryption_keys.get_secret_value()}
    return {"keys_file": str(key_file(settings))}


def vault_of(orders: Mapping[str, str]) -> Vault:
    """Raises Invalid."""
    if "keys" in orders:
        return Vault(Keyring(parse_keys(orders["keys"])))
    return Vault(Keyring.of_file(Path(orders["keys_file"])))


def key_file(settings: Settings) -> Path:
    return settings.encryption_keys_file or settings.home.resolve() / KEY_FILE


def new_key() -> Key:
    return Key(f"k{secrets.token_hex(4)}", secrets.token_bytes(KEY_BYTES))


def put_first(file: Path, key: Key) -> None:
    """Have the file's readers seal with this key from now on, and open with the others too."""
    replace(file, "\n".join([key.written(), *(each.written() for each in parse_keys(file.read_text()))]))
