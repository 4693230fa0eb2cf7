"""Who is asking: an API key or an access token becomes a Principal, or nothing does.

Every refusal has the same words, so that nobody learns which part of a credential was right. Console cookies are
`sessions.py`; what a Principal may do is the caller's question.
"""

import asyncio
import binascii
import json
from base64 import urlsafe_b64decode
from typing import Final

from app.records import Principal
from app.services.access.keybook import Key, KeyBook
from app.services.access.lockout import Lockout
from app.services.access.oidc import REFUSAL, OidcVerifier
from app.services.access.remembered import RememberedKeys
from graphs.errors import Unauthenticated

MAX_CREDENTIAL_CHARS: Final = 16_384


class Access:
    """Finds the Principal behind a request's credential."""

    def __init__(
        self,
        keys: KeyBook,
        oidc: OidcVerifier | None = None,
        lockout: Lockout | None = None,
        remembered: RememberedKeys | None = None,
    ) -> None:
        self._keys = keys
        self._oidc = oidc
        self._lockout = lockout or Lockout()
        self._remembered = remembered or RememberedKeys()
        self._looking: dict[str, asyncio.Future[Key | None]] = {}

    async def authenticate(self, authorization: str | None, api_key_header: str | None, address: str = "") -> Principal:
        """From `Authorization: Bearer <key or access token>`, or `X-API-Key`; the first that is there counts.

        `address` is the peer's, for the lock-out. Raises Unauthenticated; QuotaExhausted for an address that guesses
        keys; UpstreamError if an access token cannot be judged because the issuer was never reached.
        """
        credential = _bearer(authorization) if authorization is not None else api_key_header
        if not credential or len(credential) > MAX_CREDENTIAL_CHARS:
            raise Unauthenticated(REFUSAL)
        if (known := self._remembered.find(credential)) is not None:
            return known
        if self._oidc is not None and looks_like_jwt(credential):
            return await self._oidc.verify(credential)
        self._lockout.check(credential, address)
        key = await self._verified(credential)
        if key is None:
            self._lockout.failed(credential, address)
            raise Unauthenticated(REFUSAL)
        principal = Principal(key.tenant_id, key.user_id, frozenset(key.scopes), key.key_id, frozenset(key.groups))
        self._remembered.keep(credential, principal)
        return principal

    async def _verified(self, credential: str) -> Key | None:
        """The key's record. Requests that come together share one look into the store: a busy key is asked for by all
        that are under way whenever its trust ends, and those at the end of that queue would wait for all others."""
        looking = self._looking.get(credential)
        if looking is None:
            looking = self._looking[credential] = asyncio.ensure_future(self._keys.verify(credential))
            looking.add_done_callback(lambda done: self._looked(credential, done))
        return await asyncio.shield(looking)

    def _looked(self, credential: str, done: "asyncio.Future[Key | None]") -> None:
        del self._looking[credential]
        if not done.cancelled():
            done.exception()  # who waited has it; where nobody does any more, it is nobody's

    def forget(self, key_id: str) -> None:
        """Let this process look the key up anew: it was revoked, or put into other groups."""
        self._remembered.forget(key_id)


def looks_like_jwt(credential: str) -> bool:
    """Three dotted parts, the first of them a JSON object. An owner key may hold dots of its own."""
    head, *rest = credential.split(".")
    if len(rest) != 2:
        return False
    try:
        header = json.loads(urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return False
    return isinstance(header, dict)


def _bearer(authorization: str) -> str | None:
    scheme, _, credential = authorization.partition(" ")
    return credential.strip() if scheme.lower() == "bearer" else None
