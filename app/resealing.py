"""Brings a whole installation's contents under the key that seals now: after a key was put first, or to seal what an
earlier version left in the clear. Everything goes on being read and written meanwhile."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.checkpoints import Checkpoints
from app.services.jobs.tables import metadata as job_tables
from app.services.reseal import Reseal
from app.services.store.database import Database
from app.services.store.tables import metadata
from app.services.store.vaults import forget_keys, note_key, noted_keys, refuse_plain
from app.services.vault import Vault
from graphs.errors import Conflict

PASSES: Final = 5

Told = Callable[[int, int], Awaitable[None]]
"""How many rows of how many are done; more may have come meanwhile."""


@dataclass(frozen=True, slots=True)
class Resealed:
    """`rows` and `checkpoints` were sealed anew; `retired` are keys that nothing in use is sealed with any more."""

    key_id: str
    rows: int
    checkpoints: int
    retired: tuple[str, ...]


class Resealing:
    """Of one installation."""

    def __init__(self, database: Database, checkpoints: Checkpoints, vault: Vault) -> None:
        self._db, self._checkpoints, self._vault = database, checkpoints, vault
        self._reseal = Reseal(database, vault, [*metadata.sorted_tables, *job_tables.sorted_tables])

    async def left(self) -> int:
        """How many rows and values are not sealed with the current key."""
        return await self._reseal.left() + await self._checkpoints.stale()

    async def run(self, told: Told) -> Resealed:
        """Raises VaultError for what no key at hand opens, which stays as it is, and Conflict where other processes
        keep sealing with an earlier key."""
        self._vault.keyring.reload()
        await note_key(self._db, self._vault.keyring.current)
        total, rows, values = await self.left(), 0, 0
        for _ in range(PASSES):
            async for count in self._reseal.run():
                rows += count
                await told(rows, max(total, rows))
            values += await self._checkpoints.reseal()
            if not await self.left():
                return Resealed(self._vault.keyring.current.key_id, rows, values, await self._retire())
        raise Conflict("other processes still seal with an earlier key: give all of them the new one first, then again")

    async def _retire(self) -> tuple[str, ...]:
        current = self._vault.keyring.current.key_id
        retired = tuple(key_id for key_id in await noted_keys(self._db) if key_id != current)
        await forget_keys(self._db, retired)
        await refuse_plain(self._db, self._vault)
        await self._db.scrub()
        return retired
