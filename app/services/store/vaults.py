"""What a database says of the keys that its contents are sealed with: a proof for each, and whether contents from
before sealing may still be read.

A proof is sealed itself, so a process that lacks a key which is needed, or has another one under its id, is told so
before it reads or writes anything. Who can write to the database cannot make a proof, but can put an old one back.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, MetaData, Table, Text, delete, insert, select, text

from app.services.database import Database
from app.services.keyring import Key, Keyring
from app.services.vault import SealBroken, Vault, VaultError, VaultKeyMissing, VaultKeyWrong

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s"})
vault_keys = Table(
    "vault_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("proof", Text, nullable=False),
)

_PLAIN: Final = "."  # no key has this id
_NOBODY: Final = ""  # the tenant of proofs
_TURN: Final = 0x7661756C74  # PostgreSQL's advisory lock of those who bring a key; SQLite has one writer anyway


async def admit(database: Database, vault: Vault) -> None:
    """Let a process in that has all the keys, and note its own. Raises VaultKeyMissing, VaultKeyWrong."""
    async with database.write() as connection:
        if connection.dialect.name == "postgresql":
            await connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})
        proofs = {row.key_id: row.proof for row in await connection.execute(select(vault_keys))}
        plain = proofs.pop(_PLAIN, None)
        check_proofs(vault, proofs)
        current = vault.keyring.current
        if current.key_id not in proofs:
            await connection.execute(insert(vault_keys).values(key_id=current.key_id, proof=_proof(current)))
    vault.accepts_plain = plain is not None and _opens(vault, plain, _PLAIN)


async def note_key(database: Database, key: Key) -> None:
    """Have every process that comes from now on need this key, before anything is sealed with it."""
    async with database.write() as connection:
        row = {"key_id": key.key_id, "proof": _proof(key)}
        await connection.execute(database.insert(vault_keys).values(row).on_conflict_do_nothing())


async def forget_keys(database: Database, key_ids: Sequence[str]) -> None:
    """Nothing is sealed with these any more."""
    async with database.write() as connection:
        await connection.execute(delete(vault_keys).where(vault_keys.c.key_id.in_(key_ids)))


async def noted_keys(database: Database) -> Sequence[str]:
    async with database.read() as connection:
        query = select(vault_keys.c.key_id).where(vault_keys.c.key_id != _PLAIN).order_by(vault_keys.c.key_id)
        return (await connection.execute(query)).scalars().all()


async def refuse_plain(database: Database, vault: Vault) -> None:
    """All contents are sealed by now: what is not was put there by somebody else."""
    await forget_keys(database, [_PLAIN])
    vault.accepts_plain = False


def allow_plain(connection: Connection, vault: Vault) -> None:
    """Contents of an earlier version lie here in the clear and are read until they have been sealed."""
    proof = vault.seal_text(b"", _NOBODY, (vault_keys.name, _PLAIN))
    connection.execute(delete(vault_keys).where(vault_keys.c.key_id == _PLAIN))
    connection.execute(insert(vault_keys).values(key_id=_PLAIN, proof=proof))


def check_proofs(vault: Vault, proofs: Mapping[str, str]) -> None:
    """Whether all keys of a database are at hand, by its proofs. Raises VaultKeyMissing, VaultKeyWrong."""
    for key_id, proof in proofs.items():
        _check(vault, key_id, proof)


def proofs_in(file: Path) -> Mapping[str, str]:
    """Of a SQLite database that nobody has open; none where its contents are not sealed."""
    with closing(sqlite3.connect(file)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (vault_keys.name,)).fetchone():
            return {}
        rows = connection.execute("SELECT key_id, proof FROM vault_keys WHERE key_id <> ?", (_PLAIN,))
        return dict(rows.fetchall())


def _proof(key: Key) -> str:
    return Vault(Keyring([key])).seal_text(b"", _NOBODY, (vault_keys.name, key.key_id))


def _check(vault: Vault, key_id: str, proof: str) -> None:
    if vault.keyring.find(key_id) is None:
        at_hand = ", ".join(map(repr, vault.keyring.key_ids))
        raise VaultKeyMissing(
            f"contents of this database are sealed with the key {key_id!r}, which is not at hand "
            f"(there are: {at_hand}); add it to PILOTHOUSE_ENCRYPTION_KEYS or to encryption.keys"
        )
    try:
        vault.open_text(proof, _NOBODY, (vault_keys.name, key_id))
    except SealBroken:
        raise VaultKeyWrong(
            f"contents of this database are sealed with another key than the one at hand as {key_id!r}"
        ) from None


def _opens(vault: Vault, proof: str, key_id: str) -> bool:
    try:
        vault.open_text(proof, _NOBODY, (vault_keys.name, key_id))
    except VaultError:
        return False
    return True
