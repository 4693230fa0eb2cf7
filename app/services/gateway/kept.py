"""Answers as they lie outside the process: sealed, so that neither Redis nor a disk shows what was asked or said.

A key is a hash of the whole call, and vectors stay as they are, or nothing would be found again. What does not open, of
an earlier version or under a key that is gone, is a miss.
"""

from dataclasses import dataclass
from typing import Final

from app.services.vault import Vault, VaultError

ADDED_BYTES: Final = 128  # by sealing, at most: mark, id of the key, nonce, tag


@dataclass(frozen=True, slots=True)
class Keeping:
    """Without a vault things are kept as they are."""

    vault: Vault | None = None

    def shut(self, data: bytes, tenant: str, key: str, what: str) -> bytes:
        return data if self.vault is None else self.vault.seal(data, tenant, ("answers", what, key))

    def opened(self, kept: bytes, tenant: str, key: str, what: str) -> bytes | None:
        """None for what does not open here."""
        if self.vault is None:
            return kept
        try:
            return self.vault.open(kept, tenant, ("answers", what, key))
        except VaultError:
            return None

    def shut_text(self, text: str, tenant: str, key: str, what: str) -> str:
        if self.vault is None:
            return text
        return self.vault.seal_text(text.encode("utf-8", "replace"), tenant, ("answers", what, key))

    def opened_text(self, kept: str, tenant: str, key: str, what: str) -> str | None:
        """None for what does not open here."""
        if self.vault is None:
            return kept
        try:
            return self.vault.open_text(kept, tenant, ("answers", what, key)).decode()
        except VaultError:
            return None


OPEN: Final = Keeping()
