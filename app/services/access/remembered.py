"""Keys that were found valid a moment ago, so that a busy client does not cost a look into the store for each call.

Only the digest of a secret is kept. Another process hears of a revoked key within TRUST_S; in this one `forget` is at
once.
"""

import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final

from app.records import Principal

TRUST_S: Final = 1.0
MOST_KEYS: Final = 10_000  # beyond it all are forgotten and looked up anew


class RememberedKeys:
    """Principals by their key's digest; `clock` is monotonic seconds."""

    def __init__(self, trust_s: float = TRUST_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._trust_s, self._clock = trust_s, clock
        self._found: dict[bytes, tuple[Principal, float]] = {}

    def find(self, secret: str) -> Principal | None:
        known = self._found.get(_digest(secret))
        return None if known is None or known[1] <= self._clock() else known[0]

    def keep(self, secret: str, principal: Principal) -> None:
        if len(self._found) >= MOST_KEYS:
            self._found.clear()
        self._found[_digest(secret)] = principal, self._clock() + self._trust_s

    def forget(self, key_id: str) -> None:
        """To be called when a key is revoked or changed."""
        self._found = {digest: known for digest, known in self._found.items() if known[0].key_id != key_id}


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()
