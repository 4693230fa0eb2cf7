"""The token zoo: what must not open the door, and the little that must."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from app.records import Principal
from app.services.access.issuer import Issuer
from app.services.access.oidc import OidcVerifier
from graphs.errors import Unauthenticated

from .conftest import AUDIENCE, CLIENT_ID, FakeIssuer


def verifier(issuer: FakeIssuer, **options: Any) -> OidcVerifier:
    return OidcVerifier(Issuer(issuer.url), AUDIENCE, **options)


def b64(value: Any) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.mark.parametrize("kid", ["rsa", "ec", "ed"])
async def test_a_good_token_says_who_it_is(issuer: FakeIssuer, kid: str) -> None:
    principal = await verifier(issuer).verify(issuer.token(kid, scope="runs documents"))
    assert principal == Principal("a", "ada", frozenset({"runs", "documents"}), "")


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({}, {"chat"}),
        ({"scope": "openid profile"}, {"chat"}),
        ({"scope": "runs openid"}, {"runs"}),
        ({"scp": ["runs", 7, "approvals"]}, {"runs", "approvals"}),
        ({"scp": "runs approvals"}, {"runs", "approvals"}),
        ({"scope": "owner"}, {"chat"}),
        ({"scope": "owner runs"}, {"runs"}),
        ({"scope": {"runs": True}}, {"chat"}),
    ],
)
async def test_scopes_are_ours_and_never_the_owners(
    issuer: FakeIssuer, claims: dict[str, Any], scopes: set[str]
) -> None:
    assert (await verifier(issuer).verify(issuer.token(**claims))).scopes == scopes


@pytest.mark.parametrize(
    ("claim", "groups"),
    [
        (["payroll", "sales", "payroll"], {"payroll", "sales"}),
        ("payroll", {"payroll"}),
        ("payroll sales", {"payroll sales"}),
        (["*", "", " x", "a\nb", 7, None, ["sales"], "x" * 129, "ok"], {"ok"}),
        ({"payroll": True}, set()),
        (True, set()),
        (None, set()),
    ],
)
async def test_groups_are_what_the_claim_lists(issuer: FakeIssuer, claim: Any, groups: set[str]) -> None:
    assert (await verifier(issuer).verify(issuer.token(groups=claim))).groups == groups
    named = verifier(issuer, groups_claim="https://example.com/roles")
    claims: dict[str, Any] = {"https://example.com/roles": claim, "groups": ["board"]}
    assert (await named.verify(issuer.token(**claims))).groups == groups


async def test_not_even_the_default_scopes_make_an_owner(issuer: FakeIssuer) -> None:
    judge = verifier(issuer, default_scopes=("owner", "runs"))
    assert (await judge.verify(issuer.token())).scopes == {"runs"}


async def test_the_tenant_claim_is_configured(issuer: FakeIssuer) -> None:
    judge = verifier(issuer, tenant_claim="https://example.com/org")
    claims: dict[str, Any] = {"https://example.com/org": "b"}
    assert (await judge.verify(issuer.token(**claims))).tenant_id == "b"
    with pytest.raises(Unauthenticated):
        await judge.verify(issuer.token())


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "no end": {"exp": None},
    "no audience": {"aud": None},
    "no issuer": {"iss": None},
    "no subject": {"sub": None},
    "no time of issue": {"iat": None},
    "no tenant": {"tenant": None},
    "over": {"exp": 1},
    "not yet": {"nbf": time.time() + 3600},
    "issued tomorrow": {"iat": time.time() + 86_400},
    "endless": {"exp": 1e308, "iat": 1e308},
    "an end in words": {"exp": "tomorrow"},
    "another audience": {"aud": "someone-else"},
    "many other audiences": {"aud": ["x", "y"]},
    "an audience of numbers": {"aud": 7},
    "another issuer": {"iss": "https://evil.example"},
    "an empty tenant": {"tenant": ""},
    "a tenant of the product's own": {"tenant": "_shared"},
    "a tenant that is a list": {"tenant": ["a"]},
    "a tenant with a NUL": {"tenant": "a\x00"},
    "an empty subject": {"sub": ""},
    "a subject without end": {"sub": "x" * 256},
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
async def test_a15_a_signed_token_with_bad_claims_is_refused(issuer: FakeIssuer, name: str) -> None:
    with pytest.raises(Unauthenticated):
        await verifier(issuer).verify(issuer.token(**BAD_CLAIMS[name]))


def unsigned(issuer: FakeIssuer) -> str:
    return jwt.encode(issuer.claims(), "", algorithm="none")


def unsigned_in_capitals(issuer: FakeIssuer) -> str:
    return f"{b64({'alg': 'nOnE', 'kid': 'rsa'})}.{b64(issuer.claims())}."


def signed_with_the_public_key_as_secret(issuer: FakeIssuer) -> str:
    public = issuer.keys["rsa"].public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa'})}.{b64(issuer.claims())}"
    return f"{signed}.{b64(hmac.digest(pem, signed.encode(), sha256))}"


def signed_with_a_shared_secret_of_the_set(issuer: FakeIssuer) -> str:
    issuer.extra_jwks.append({"kty": "oct", "k": b64(b"s" * 32), "kid": "oct", "alg": "HS256"})
    return jwt.encode(issuer.claims(), "s" * 32, algorithm="HS256", headers={"kid": "oct"})


def a_strangers(issuer: FakeIssuer, **headers: Any) -> str:
    stranger = rsa.generate_private_key(65537, 2048)
    return jwt.encode(issuer.claims(), stranger, algorithm="RS256", headers={"kid": "rsa"} | headers)


def a_strangers_with_its_own_key_set(issuer: FakeIssuer) -> str:
    return a_strangers(issuer, jku=f"{issuer.url}/theirs", x5u=f"{issuer.url}/theirs", jwk={"kty": "RSA"})


def with_an_algorithm_that_is_not_the_keys(issuer: FakeIssuer) -> str:
    return issuer.token("ec", headers={"kid": "rsa"})


def with_an_encryption_key(issuer: FakeIssuer) -> str:
    issuer.keys = {"ec": issuer.keys["ec"]} | {"rsa": issuer.keys["rsa"]}
    token = issuer.token("rsa", headers={"kid": "enc"})
    issuer.extra_jwks.append(issuer.jwk("rsa") | {"kid": "enc", "use": "enc"})
    return token


def with_a_weak_key(issuer: FakeIssuer) -> str:
    weak = rsa.generate_private_key(65537, 1024)
    issuer.keys["rsa-weak"] = weak
    return jwt.api_jws.encode(json.dumps(issuer.claims()).encode(), weak, "RS256", headers={"kid": "rsa-weak"})


def critical(issuer: FakeIssuer) -> str:
    return issuer.token(headers={"crit": ["exp-plus"], "exp-plus": 1})


def critical_but_known(issuer: FakeIssuer) -> str:
    return issuer.token(headers={"crit": ["b64"], "b64": True})


def with_a_kid_of_a_number(issuer: FakeIssuer) -> str:
    _, body, signature = issuer.token().split(".")
    return f"{b64({'alg': 'RS256', 'kid': 7})}.{body}.{signature}"


def without_a_kid_among_many_keys(issuer: FakeIssuer) -> str:
    return jwt.encode(issuer.claims(), issuer.keys["rsa"], algorithm="RS256")


def with_a_changed_body(issuer: FakeIssuer) -> str:
    head, _, signature = issuer.token().split(".")
    return f"{head}.{b64(issuer.claims() | {'tenant': 'b'})}.{signature}"


def with_infinite_time(issuer: FakeIssuer) -> str:
    return jwt.api_jws.encode(
        json.dumps(issuer.claims() | {"exp": float("inf")}).encode(),
        issuer.keys["rsa"],
        "RS256",
        headers={"kid": "rsa"},
    )


def without_an_object(issuer: FakeIssuer) -> str:
    return jwt.api_jws.encode(b"[1]", issuer.keys["rsa"], "RS256", headers={"kid": "rsa"})


def nested_without_end(issuer: FakeIssuer) -> str:
    return jwt.api_jws.encode(b"[" * 100_000, issuer.keys["rsa"], "RS256", headers={"kid": "rsa"})


def cut_short(issuer: FakeIssuer) -> str:
    return issuer.token()[:-10]


@pytest.mark.parametrize(
    "forge",
    [
        unsigned,
        unsigned_in_capitals,
        signed_with_the_public_key_as_secret,
        signed_with_a_shared_secret_of_the_set,
        a_strangers,
        a_strangers_with_its_own_key_set,
        with_an_algorithm_that_is_not_the_keys,
        with_an_encryption_key,
        with_a_weak_key,
        critical,
        critical_but_known,
        with_a_kid_of_a_number,
        without_a_kid_among_many_keys,
        with_a_changed_body,
        with_infinite_time,
        without_an_object,
        nested_without_end,
        cut_short,
    ],
)
@pytest.mark.filterwarnings("ignore::jwt.InsecureKeyLengthWarning")  # raised where the test signs
async def test_a15_a_forged_token_is_refused(issuer: FakeIssuer, forge: Callable[[FakeIssuer], str]) -> None:
    with pytest.raises(Unauthenticated):
        await verifier(issuer).verify(forge(issuer))
    assert "/theirs" not in issuer.seen


@pytest.mark.parametrize(
    "kid", ["../../etc/passwd", "' OR 1=1 --", "http://127.0.0.1/jwks", "/dev/null", "", "\x00", "k" * 5_000]
)
async def test_a15_a_key_id_is_only_ever_looked_up(issuer: FakeIssuer, kid: str) -> None:
    with pytest.raises(Unauthenticated):
        await verifier(issuer).verify(issuer.token(headers={"kid": kid}))
    assert set(issuer.seen) == {"/.well-known/openid-configuration", "/jwks"}


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "a.b", "é.é.é", "\ud800.x.y", "A" * 100_000, "e30.e30.e30"])
async def test_a15_what_is_no_token_is_refused(issuer: FakeIssuer, token: str) -> None:
    with pytest.raises(Unauthenticated):
        await verifier(issuer).verify(token)


async def test_without_a_key_id_the_only_key_there_is_counts(issuer: FakeIssuer) -> None:
    issuer.keys = {"ec": issuer.keys["ec"]}
    token = jwt.encode(issuer.claims(), issuer.keys["ec"], algorithm="ES256")
    assert (await verifier(issuer).verify(token)).user_id == "ada"


async def test_a15_an_algorithm_that_is_not_configured_is_refused(issuer: FakeIssuer) -> None:
    with pytest.raises(Unauthenticated):
        await verifier(issuer, algorithms=("ES256",)).verify(issuer.token("rsa"))


@pytest.mark.parametrize("algorithms", [("HS256",), ("none",), ("RS256", "HS512"), ()])
def test_a15_shared_secrets_can_not_be_configured(algorithms: tuple[str, ...]) -> None:
    with pytest.raises(ValueError):
        OidcVerifier(Issuer("https://id.example"), AUDIENCE, algorithms=algorithms)


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "other"},
        {"nonce": None},
        {"aud": AUDIENCE},
        {"aud": [CLIENT_ID, "other"]},
        {"azp": "other"},
        {"aud": [CLIENT_ID, "other"], "azp": "other"},
    ],
)
async def test_an_id_token_for_someone_else_or_another_login_is_refused(
    issuer: FakeIssuer, claims: dict[str, Any]
) -> None:
    judge = verifier(issuer)
    good: dict[str, Any] = {"aud": CLIENT_ID, "nonce": "n"}
    assert (await judge.verify_id_token(issuer.token(**good), CLIENT_ID, "n")).user_id == "ada"
    with pytest.raises(Unauthenticated):
        await judge.verify_id_token(issuer.token(**good | claims), CLIENT_ID, "n")
