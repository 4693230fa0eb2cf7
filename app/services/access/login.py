"""OIDC login for the console: authorization code with PKCE, state and nonce.

No web framework in here: values in, values out; the console sets the cookie and reads the query.
"""

import hmac
from dataclasses import dataclass
from typing import Any, Final

from authlib.common.security import generate_token
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from itsdangerous import BadData

from app.records import Principal
from app.services.access.issuer import Issuer
from app.services.access.oidc import OidcVerifier
from app.services.access.sessions import signer
from graphs.errors import Unauthenticated, UpstreamRejected

ATTEMPT_S: Final = 10 * 60
_SCOPE: Final = "openid profile"
_REFUSAL: Final = "the login failed or took too long; start again"


@dataclass(frozen=True, slots=True)
class LoginStart:
    """Where to send the browser, and the signed cookie that it must bring back."""

    url: str
    cookie: str


class OidcLogin:
    """Logins at one issuer. `client_secret` None makes this a public client, which PKCE protects."""

    def __init__(
        self, issuer: Issuer, verifier: OidcVerifier, client_id: str, client_secret: str | None, secret: str
    ) -> None:
        self._issuer = issuer
        self._verifier = verifier
        self._client_id = client_id
        self._client_secret = client_secret
        self._signer = signer(secret, "login")

    async def begin(self, redirect_uri: str) -> LoginStart:
        """Start a login that comes back to `redirect_uri`. Raises UpstreamError."""
        state, nonce, code_verifier = generate_token(32), generate_token(32), generate_token(64)
        url = prepare_grant_uri(
            await self._issuer.endpoint("authorization_endpoint"),
            self._client_id,
            "code",
            redirect_uri=redirect_uri,
            scope=_SCOPE,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(code_verifier),
            code_challenge_method="S256",
        )
        return LoginStart(str(url), str(self._signer.dumps([state, nonce, code_verifier, redirect_uri])))

    async def finish(self, code: str, state: str, cookie: str | None) -> Principal:
        """What the issuer sent back, with the cookie of `begin`. Raises Unauthenticated, UpstreamError."""
        try:
            kept = self._signer.loads((cookie or "").encode("utf-8", "replace"), max_age=ATTEMPT_S)
        except BadData as error:
            raise Unauthenticated(_REFUSAL) from error
        ours, nonce, code_verifier, redirect_uri = kept
        if not hmac.compare_digest(state.encode("utf-8", "replace"), ours.encode()):
            raise Unauthenticated(_REFUSAL)
        id_token = (await self._exchange(code, code_verifier, redirect_uri)).get("id_token")
        if not isinstance(id_token, str):
            raise Unauthenticated(_REFUSAL)
        return await self._verifier.verify_id_token(id_token, self._client_id, nonce)

    async def _exchange(self, code: str, code_verifier: str, redirect_uri: str) -> Any:
        form = prepare_token_request(
            "authorization_code", redirect_uri=redirect_uri, code=code, code_verifier=code_verifier
        )
        url = await self._issuer.endpoint("token_endpoint")
        client = ClientAuth(self._client_id, self._client_secret, await self._client_auth_method())
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        url, headers, form = client.prepare("POST", url, headers, form)
        try:
            return await self._issuer.post(url, form, headers)
        except UpstreamRejected as error:
            raise Unauthenticated(_REFUSAL) from error

    async def _client_auth_method(self) -> str:
        if self._client_secret is None:
            return "none"
        # Absent means basic (OpenID Connect Discovery 1.0, section 3).
        offered = (await self._issuer.metadata()).get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        return "client_secret_basic" if "client_secret_basic" in offered else "client_secret_post"
