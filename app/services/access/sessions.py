"""The console's sessions: a signed cookie that says who it is, and tokens that open a first one.

A session made from a key ends with it, and is in the groups that the key is in: each check asks. Nothing is stored
here, so a session without a key (after an OIDC login) ends by age alone and keeps the groups of its login.
"""

import json
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from itsdangerous import BadData, URLSafeTimedSerializer

from app.records import Principal
from app.services.access import secretfile
from app.services.access.keybook import KeyBook
from graphs.errors import Unauthenticated

MAX_AGE_S: Final = 12 * 3600
LOGIN_TOKEN_S: Final = 15 * 60.0
GROUPS_CHARS: Final = 2_000  # browsers drop a cookie of more than 4,096 bytes, and signing makes a third more of it


def session_secret(home: Path) -> str:
    """The signing secret in `home/session.secret` (mode 600), made at first use. To end all sessions, delete it."""
    return secretfile.keep(home / "session.secret", lambda: secrets.token_urlsafe(48))


def signer(secret: str, purpose: str) -> URLSafeTimedSerializer:
    """Signs JSON values with their time; what is signed for one purpose does not hold for another."""
    # itsdangerous' own default is SHA-1.
    return URLSafeTimedSerializer(
        secret, salt=f"pilothouse.{purpose}", signer_kwargs={"key_derivation": "hmac", "digest_method": sha256}
    )


class Sessions:
    """Console sessions."""

    def __init__(self, secret: str, keys: KeyBook, max_age_s: int = MAX_AGE_S) -> None:
        self._signer = signer(secret, "session")
        self._keys = keys
        self.max_age_s = max_age_s

    def issue(self, principal: Principal) -> str:
        """A cookie's value; ASCII, safe in a header."""
        groups = [] if principal.key_id else _fitting(principal.groups)
        who = [principal.tenant_id, principal.user_id, sorted(principal.scopes), principal.key_id, groups]
        return str(self._signer.dumps(who))

    async def check(self, cookie: str | None) -> Principal:
        """Raises Unauthenticated for a forged, old or absent cookie and for one whose key is revoked or expired."""
        try:
            value: Any = self._signer.loads((cookie or "").encode("utf-8", "replace"), max_age=self.max_age_s)
        except BadData as error:
            raise Unauthenticated("the session is missing, over or not valid") from error
        tenant_id, user_id, scopes, key_id, *kept = value  # a cookie from before groups has none
        groups = next(iter(kept), ())
        if key_id:
            if (key := await self._keys.find(key_id)) is None:
                raise Unauthenticated("the session's key is no longer valid")
            groups = key.groups
        return Principal(tenant_id, user_id, frozenset(scopes), key_id, frozenset(groups))


def _fitting(groups: Collection[str]) -> list[str]:
    """Of more than a cookie can hold the last by the alphabet are left out: who has them sees the less for it."""
    kept, room = list[str](), GROUPS_CHARS
    for name in sorted(groups):
        room -= len(json.dumps(name))
        if room < 0:
            break
        kept.append(name)
    return kept


@dataclass(frozen=True, slots=True)
class _Invitation:
    principal: Principal
    expires_at: float


class LoginTokens:
    """One-time tokens for a console link, in this process's memory; `clock` is monotonic seconds."""

    def __init__(self, lifetime_s: float = LOGIN_TOKEN_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._lifetime_s = lifetime_s
        self._clock = clock
        self._open: dict[str, _Invitation] = {}

    def issue(self, principal: Principal) -> str:
        """A token that logs `principal` in, once."""
        now = self._clock()
        self._open = {digest: kept for digest, kept in self._open.items() if kept.expires_at > now}
        token = secrets.token_urlsafe(32)
        self._open[_digest(token)] = _Invitation(principal, now + self._lifetime_s)
        return token

    def redeem(self, token: str) -> Principal:
        """Raises Unauthenticated for a token that is unknown, used or over."""
        kept = self._open.pop(_digest(token), None)
        if kept is None or kept.expires_at <= self._clock():
            raise Unauthenticated("the login link was used already or is over")
        return kept.principal


def _digest(token: str) -> str:
    # Looked up by digest, so that the time of a failed look-up tells nothing about tokens.
    return sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
