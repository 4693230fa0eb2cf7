"""The owner's key of an installation, and what follows from it.

Processes with homes of their own on one PostgreSQL have to have the same key: each other one would shut the owner out
at the rest of them. So a process with another key does not start there, and the key is changed by a command.
"""

import asyncio
import hashlib
from pathlib import Path

from app.services.access.owner import OWNER_KEY_FILE, ensure_owner_key
from app.services.access.sessions import session_secret
from app.services.store.keys import Keys, OwnerKeyDiffers
from app.services.store.records import KeyRecord


async def admit_owner(keys: Keys, home: Path, configured: str | None, *, shared: bool) -> tuple[KeyRecord, str]:
    """The owner and the secret that signs console sessions. `shared` says that the database may have processes with
    other homes. Raises OwnerKeyDiffers there.
    """
    if not shared:
        return await keys.import_owner(ensure_owner_key(home, configured)), session_secret(home)
    if configured is None and not (home / OWNER_KEY_FILE).exists() and await keys.has_owner():
        raise OwnerKeyDiffers
    owner = await keys.import_owner(configured or ensure_owner_key(home, None), replaces=False)
    return owner, await asyncio.to_thread(_shared_secret, ensure_owner_key(home, configured))


def _shared_secret(owner_key: str) -> str:
    """The same for all who know the owner key. Dear to compute, because everybody with a session may guess at it."""
    key = owner_key.encode("utf-8", "surrogatepass")
    return hashlib.scrypt(key, salt=b"pilothouse.session", n=2**14, r=8, p=1).hex()
