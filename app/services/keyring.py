"""The keys that contents are sealed with: several that open, the first of which seals.

They come from the settings, or from a file that may change while it is read by running processes. No key is ever told:
messages name keys by their ids.
"""

import base64
import binascii
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, Self

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from graphs.errors import Invalid

KEY_BYTES: Final = 32
LOOK_AGAIN_S: Final = 1.0  # how long a changed file is not noticed by who only seals
TENANTS_HELD: Final = 1_024
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


@dataclass(frozen=True, slots=True)
class Key:
    """`secret` has KEY_BYTES bytes."""

    key_id: str
    secret: bytes = field(repr=False)

    def cipher(self, tenant_id: str) -> AESGCM:
        """A tenant's own: random nonces may meet only within one tenant, and no value opens as another tenant's."""
        return _cipher(self.secret, tenant_id)

    def written(self) -> str:
        """As settings and key files have it."""
        return f"{self.key_id}:{base64.b64encode(self.secret).decode()}"


def parse_keys(text: str) -> tuple[Key, ...]:
    """Keys as `id:base64`, separated by commas or white space. Raises Invalid, which names places, never values."""
    keys = tuple(_key(place, told) for place, told in enumerate(re.split(r"[,\s]+", text.strip()), 1))
    if len({key.key_id for key in keys}) != len(keys):
        raise Invalid("two encryption keys have the same id")
    return keys


def _key(place: int, told: str) -> Key:
    key_id, _, encoded = told.partition(":")
    if _ID.fullmatch(key_id) is None:
        raise Invalid(f"encryption key {place} must be id:base64; its id has 1 to 32 letters, digits, _ or -")
    try:
        secret = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
    except binascii.Error:
        raise Invalid(f"encryption key {key_id!r} is not base64") from None
    if len(secret) != KEY_BYTES:
        raise Invalid(f"encryption key {key_id!r} must have {KEY_BYTES} bytes, not {len(secret)}")
    return Key(key_id, secret)


class Keyring:
    """Keys by id. One that comes from a file sees what is added to it."""

    def __init__(self, keys: Sequence[Key], file: Path | None = None, *, now: Callable[[], float] = time.monotonic):
        self._file, self._now = file, now
        self._look_at = now() + LOOK_AGAIN_S
        self._stamp: tuple[int, int] | None = None
        self._hold(keys)

    @classmethod
    def of_file(cls, file: Path, *, now: Callable[[], float] = time.monotonic) -> Self:
        """Raises Invalid."""
        ring = cls(parse_keys(file.read_text()), file, now=now)
        ring._stamp = ring._stamped()
        return ring

    @property
    def current(self) -> Key:
        """The key that seals."""
        if self._file is not None and (now := self._now()) >= self._look_at:
            self._look_at = now + LOOK_AGAIN_S
            self.reload()
        return self._current

    @property
    def key_ids(self) -> tuple[str, ...]:
        """The one that seals first."""
        return tuple(self._keys)

    def find(self, key_id: str) -> Key | None:
        if key_id not in self._keys:
            self.reload()
        return self._keys.get(key_id)

    def reload(self) -> None:
        """See what the file has by now; one that is gone or cannot be read leaves the keys as they are."""
        if self._file is None or (stamp := self._stamped()) == self._stamp:
            return
        try:
            self._hold(parse_keys(self._file.read_text()))
        except (OSError, Invalid):
            return
        self._stamp = stamp

    def _hold(self, keys: Sequence[Key]) -> None:
        self._keys = {key.key_id: key for key in keys}
        self._current = keys[0]

    def _stamped(self) -> tuple[int, int] | None:
        assert self._file is not None
        try:
            found = self._file.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino


@lru_cache(TENANTS_HELD)
def _cipher(secret: bytes, tenant_id: str) -> AESGCM:
    derived = HKDF(SHA256(), KEY_BYTES, salt=None, info=b"pilothouse contents\0" + tenant_id.encode())
    return AESGCM(derived.derive(secret))
