"""An OIDC issuer on loopback that can be slow, down, or about to change its keys."""

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import jwt
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

AUDIENCE = "pilothouse"
CLIENT_ID = "console"
# By the beginning of a key id.
ALGORITHMS = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}


@dataclass
class FakeIssuer:
    """`seen` counts requests by path; `codes` holds what each authorization code was given for."""

    url: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    extra_jwks: list[Any] = field(default_factory=list)
    seen: dict[str, int] = field(default_factory=dict)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    forms: list[dict[str, str]] = field(default_factory=list)
    authorization: list[str | None] = field(default_factory=list)
    discovery: dict[str, Any] = field(default_factory=dict)
    delay_s: float = 0.0
    status: int = 200
    body: bytes | None = None

    def token(self, kid: str = "rsa", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """A good access token but for what is passed; a claim set to None is left out."""
        return jwt.encode(
            {name: value for name, value in (self.claims() | claims).items() if value is not None},
            self.keys[kid],
            algorithm=ALGORITHMS[kid.split("-")[0]],
            headers={"kid": kid} | (headers or {}),
        )

    def claims(self) -> dict[str, Any]:
        now = int(time.time())
        return {"iss": self.url, "aud": AUDIENCE, "sub": "ada", "tenant": "a", "iat": now, "exp": now + 300}

    def jwks(self) -> dict[str, Any]:
        return {"keys": [*self.extra_jwks, *(self.jwk(kid) for kid in self.keys)]}

    def jwk(self, kid: str) -> dict[str, Any]:
        written: str = jwt.get_algorithm_by_name(ALGORITHMS[kid.split("-")[0]]).to_jwk(self.keys[kid].public_key())
        return {**json.loads(written), "kid": kid, "use": "sig"}

    async def handle(self, request: web.Request) -> web.Response:
        self.seen[request.path] = self.seen.get(request.path, 0) + 1
        await asyncio.sleep(self.delay_s)
        if self.body is not None or self.status != 200:
            return web.Response(status=self.status, body=self.body or b"", headers={"Location": "/elsewhere"})
        if request.path == "/token":
            return await self.exchange(request)
        return web.json_response(self.jwks() if request.path == "/jwks" else self.document())

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
        } | self.discovery

    async def exchange(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.forms.append(form)
        self.authorization.append(request.headers.get("Authorization"))
        given = self.codes.pop(form.get("code", ""), None)
        proof = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest()).decode().rstrip("=")
        if given is None or given["challenge"] != proof:
            return web.json_response({"error": "invalid_grant"}, status=400)
        claims = {"aud": CLIENT_ID, "nonce": given["nonce"]} | json.loads(given.get("claims", "{}"))
        return web.json_response({"access_token": "x", "token_type": "Bearer", "id_token": self.token(**claims)})


@pytest.fixture(scope="session")
def signing_keys() -> dict[str, Any]:
    return {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "ed": ed25519.Ed25519PrivateKey.generate(),
    }


@pytest.fixture
async def issuer(signing_keys: dict[str, Any]) -> AsyncIterator[FakeIssuer]:
    fake = FakeIssuer(keys=dict(signing_keys))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    server = TestServer(app)
    await server.start_server()
    fake.url = str(server.make_url("")).rstrip("/")
    yield fake
    await server.close()
