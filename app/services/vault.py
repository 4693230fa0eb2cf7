"""Seals what must not lie in a database in the clear, and opens it again: AES-256-GCM under keys that are kept apart.

A sealed value names its key and is bound to its place: tenant, table, column and the ids of its row. Moved anywhere
else, or changed, it does not open. Not covered: a row that is put back as it was before, or is deleted; the length of
a value, its times and its ids, which stay in the clear; whoever reads the memory of a process or has the keys.
"""

import binascii
import os
import zlib
from collections.abc import Sequence
from typing import Final

import orjson
from cryptography.exceptions import InvalidTag

from app.services.keyring import Keyring
from graphs.errors import PilothouseError

MARK: Final = "pv1."  # of sealed values; the key's id and a dot follow
NONCE_BYTES: Final = 12
COMPRESSED_FROM_BYTES: Final = 4_096  # below it deflating costs more time than it saves space
_RAW, _DEFLATED = b"\0", b"\1"

Place = Sequence[str]
"""Table, column and ids, in the order in which they were given at sealing."""


class VaultError(PilothouseError):
    """A sealed value that cannot be opened here. Nothing of it is given."""


class VaultKeyMissing(VaultError):
    """None of the keys at hand has the id that the value names."""

    code = "encryption_key_missing"


class VaultKeyWrong(VaultError):
    """The key at hand has the id that was used, and is another key."""

    code = "encryption_key_wrong"


class SealBroken(VaultError):
    """The value was changed, or lies where it was not sealed for."""

    code = "seal_broken"


class Unsealed(VaultError):
    """Something lies in the clear where only sealed values may."""

    code = "unsealed_value"


class Vault:
    """Both ways. `accepts_plain` says that values from before sealing are still read as they are."""

    def __init__(self, keyring: Keyring, *, accepts_plain: bool = False) -> None:
        self.keyring = keyring
        self.accepts_plain = accepts_plain

    @property
    def mark(self) -> str:
        """What values begin with that are sealed with the current key."""
        return f"{MARK}{self.keyring.current.key_id}."

    def seal(self, value: bytes, tenant_id: str, place: Place) -> bytes:
        head, body = self._sealed(value, tenant_id, place)
        return head + body

    def seal_text(self, value: bytes, tenant_id: str, place: Place) -> str:
        """The same as ASCII."""
        head, body = self._sealed(value, tenant_id, place)
        return (head + binascii.b2a_base64(body, newline=False)).decode()

    def open(self, sealed: bytes, tenant_id: str, place: Place) -> bytes:
        """Raises VaultKeyMissing, SealBroken, Unsealed."""
        key_id, body = _parted(sealed, place)
        return self._opened(key_id, body, tenant_id, place)

    def open_text(self, sealed: str, tenant_id: str, place: Place) -> bytes:
        """Raises VaultKeyMissing, SealBroken, Unsealed."""
        key_id, body = _parted(sealed.encode(), place)
        try:
            raw = binascii.a2b_base64(body, strict_mode=True)
        except binascii.Error:
            raise _broken(key_id, place) from None
        return self._opened(key_id, raw, tenant_id, place)

    def refuse_plain(self, place: Place) -> None:
        """Raises Unsealed, unless plain values are still read."""
        if not self.accepts_plain:
            raise Unsealed(f"a value of {_named(place)} is not sealed; nobody but this product may write there")

    def _sealed(self, value: bytes, tenant_id: str, place: Place) -> tuple[bytes, bytes]:
        key = self.keyring.current
        form = _RAW
        if len(value) >= COMPRESSED_FROM_BYTES:
            value, form = zlib.compress(value, 1), _DEFLATED
        nonce = os.urandom(NONCE_BYTES)
        bound = _bound(key.key_id, tenant_id, place)
        return f"{MARK}{key.key_id}.".encode(), nonce + key.cipher(tenant_id).encrypt(nonce, form + value, bound)

    def _opened(self, key_id: str, body: bytes, tenant_id: str, place: Place) -> bytes:
        if (key := self.keyring.find(key_id)) is None:
            at_hand = ", ".join(map(repr, self.keyring.key_ids))
            raise VaultKeyMissing(f"{_named(place)} is sealed with the key {key_id!r}; at hand: {at_hand}")
        nonce, sealed = body[:NONCE_BYTES], body[NONCE_BYTES:]
        try:
            found = key.cipher(tenant_id).decrypt(nonce, sealed, _bound(key_id, tenant_id, place))
        except (InvalidTag, ValueError):  # ValueError: too short for a nonce
            raise _broken(key_id, place) from None
        return zlib.decompress(found[1:]) if found[:1] == _DEFLATED else found[1:]


def is_sealed(value: object) -> bool:
    if isinstance(value, str):
        return value.startswith(MARK)
    return isinstance(value, bytes) and value.startswith(MARK.encode())


def _parted(sealed: bytes, place: Place) -> tuple[str, bytes]:
    mark, _, rest = sealed.partition(b".")
    key_id, dot, body = rest.partition(b".")
    if mark + b"." != MARK.encode() or not dot:
        raise Unsealed(f"a value of {_named(place)} is not sealed")
    return key_id.decode("ascii", "replace"), body


def _bound(key_id: str, tenant_id: str, place: Place) -> bytes:
    """As JSON, in which no two lists of texts are written alike."""
    return orjson.dumps([MARK, key_id, tenant_id, *place])


def _named(place: Place) -> str:
    return ".".join(place[:2])


def _broken(key_id: str, place: Place) -> SealBroken:
    return SealBroken(
        f"a value of {_named(place)} sealed with the key {key_id!r} does not open: "
        "it was changed, belongs elsewhere, or that key is another one now"
    )
