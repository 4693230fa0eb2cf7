"""The owner's key: set by the operator or made at first start, and always readable in the state folder."""

import secrets
from pathlib import Path
from typing import Final

from app.services.access import secretfile

OWNER_KEY_FILE: Final = "owner.key"


def ensure_owner_key(home: Path, configured: str | None) -> str:
    """The owner key of this state folder, also left in `home/owner.key` (mode 600) for the CLI.

    A configured key wins over the one in the file and takes its place there.
    """
    path = home / OWNER_KEY_FILE
    if configured is None:
        return secretfile.keep(path, lambda: f"ph_owner_{secrets.token_urlsafe(32)}")
    if not path.exists() or path.read_text().strip() != configured:
        secretfile.replace(path, configured)
    return configured
