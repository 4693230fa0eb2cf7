"""Judges tokens of one OIDC issuer: access tokens at the API, ID tokens after a login.

The algorithms are fixed, the key comes from the issuer's cached set and from nowhere the token points to (`jku`, `x5u`,
`jwk` and `x5c` are never read), and a token without an end, an audience or a subject is none.
"""

import hmac
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, TypeGuard

import jwt
from jwt import PyJWK

from app.records import SCOPES, Principal
from app.services.access.issuer import Issuer
from app.services.access.jwks import JwksCache
from app.sight import MAX_MEMBER_GROUPS, is_group
from graphs.errors import Unauthenticated

ALGORITHMS: Final = ("RS256", "ES256", "EdDSA")
LEEWAY_S: Final = 30
MAX_TENANT_CHARS: Final = 128  # as for keys
MAX_SUBJECT_CHARS: Final = 255  # OpenID Connect Core 1.0, section 2
REFUSAL: Final = "the credential is missing or not valid"
_REQUIRED: Final = ["exp", "iat", "aud", "iss", "sub"]
# PyJWT raises its own tree; claims of the wrong type or size come through as these.
_INVALID: Final = (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError)


class OidcVerifier:
    """Turns a token into a Principal. The tenant is the token's `tenant_claim`, the user its subject, its groups what
    `groups_claim` lists."""

    def __init__(
        self,
        issuer: Issuer,
        audience: str,
        *,
        jwks: JwksCache | None = None,
        algorithms: Sequence[str] = ALGORITHMS,
        tenant_claim: str = "tenant",
        groups_claim: str = "groups",
        default_scopes: Collection[str] = ("chat",),
    ) -> None:
        """`jwks` None keeps the issuer's keys by the usual rules.

        Raises ValueError for an algorithm outside of ALGORITHMS: shared secrets and `none` are never accepted.
        """
        if not algorithms or not set(algorithms) <= set(ALGORITHMS):
            raise ValueError(f"algorithms must be some of {', '.join(ALGORITHMS)}")
        self._issuer = issuer.url
        self._audience = audience
        self._jwks = jwks or JwksCache(issuer.jwks)
        self._algorithms = list(algorithms)
        self._tenant_claim = tenant_claim
        self._groups_claim = groups_claim
        self._default_scopes = _grantable(default_scopes)

    async def verify(self, token: str) -> Principal:
        """Raises Unauthenticated; UpstreamError if the issuer's keys could never be had."""
        return self._principal(await self._claims(token, self._audience))

    async def verify_id_token(self, token: str, client_id: str, nonce: str) -> Principal:
        """The same for the ID token that answers our own login: for this client and with its nonce."""
        claims = await self._claims(token, client_id)
        shared = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
        if claims.get("azp", None if shared else client_id) != client_id:
            raise Unauthenticated(REFUSAL)
        if not hmac.compare_digest(str(claims.get("nonce", "")).encode("utf-8", "replace"), nonce.encode()):
            raise Unauthenticated(REFUSAL)
        return self._principal(claims)

    async def _claims(self, token: str, audience: str) -> Mapping[str, Any]:
        try:
            header = jwt.get_unverified_header(token)
        except _INVALID as error:
            raise Unauthenticated(REFUSAL) from error
        # We understand no critical extension, so a token that needs one is not for us.
        if "crit" in header or header.get("alg") not in self._algorithms:
            raise Unauthenticated(REFUSAL)
        key = await self._jwks.key(header.get("kid"))
        if key is None:
            raise Unauthenticated(REFUSAL)
        return self._decode(token, key, audience)

    def _decode(self, token: str, key: PyJWK, audience: str) -> Mapping[str, Any]:
        try:
            return jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": _REQUIRED, "enforce_minimum_key_length": True},
            )
        except _INVALID as error:
            raise Unauthenticated(REFUSAL) from error

    def _principal(self, claims: Mapping[str, Any]) -> Principal:
        tenant, user = claims.get(self._tenant_claim), claims["sub"]
        if not (_is_name(tenant, MAX_TENANT_CHARS) and _is_name(user, MAX_SUBJECT_CHARS)):
            raise Unauthenticated(REFUSAL)
        scopes = _grantable(_scopes(claims)) or self._default_scopes
        return Principal(tenant, user, scopes, groups=_groups(claims.get(self._groups_claim)))


def _scopes(claims: Mapping[str, Any]) -> Collection[str]:
    """From `scope` (space-separated, RFC 8693) or `scp` (a list or the same)."""
    value = claims.get("scope", claims.get("scp"))
    if isinstance(value, str):
        return value.split()
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else ()


def _groups(claim: Any) -> frozenset[str]:
    """A list of names, or one name. What is no group's name is left out, and of too many the last by the alphabet: who
    has none of them sees the less for it."""
    listed = claim if isinstance(claim, list) else [claim]
    return frozenset(sorted({name for name in listed if is_group(name)})[:MAX_MEMBER_GROUPS])


def _grantable(scopes: Collection[str]) -> frozenset[str]:
    """An issuer may grant every scope but the owner's: ownership is proved by the owner key alone."""
    return frozenset(scopes) & frozenset(SCOPES) - {"owner"}


def _is_name(value: Any, max_chars: int) -> TypeGuard[str]:
    """A tenant or user; a leading underscore is kept for the product's own."""
    return isinstance(value, str) and 1 <= len(value) <= max_chars and value.isprintable() and not value.startswith("_")
