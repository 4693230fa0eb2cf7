"""The console's login at an issuer: only the browser that began it ends it."""

import json
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from app.services.access.issuer import Issuer
from app.services.access.login import LoginStart, OidcLogin
from app.services.access.oidc import OidcVerifier
from graphs.errors import Unauthenticated, UpstreamError

from .conftest import AUDIENCE, CLIENT_ID, FakeIssuer

BACK = "http://127.0.0.1:8000/login/oidc"


def login(issuer: FakeIssuer, client_secret: str | None = None) -> OidcLogin:
    reached = Issuer(issuer.url)
    return OidcLogin(reached, OidcVerifier(reached, AUDIENCE), CLIENT_ID, client_secret, "session secret")


def approve(issuer: FakeIssuer, start: LoginStart, **claims: Any) -> dict[str, str]:
    """What a person does at the issuer; gives the query of the redirect back."""
    asked = dict(parse_qsl(urlsplit(start.url).query))
    issuer.codes["c0de"] = {
        "nonce": asked["nonce"],
        "challenge": asked["code_challenge"],
        "claims": json.dumps(claims),
    }
    return {"code": "c0de", "state": asked["state"]}


async def test_the_browser_is_sent_with_a_challenge_and_nothing_secret(issuer: FakeIssuer) -> None:
    start = await login(issuer, "hush").begin(BACK)
    asked = dict(parse_qsl(urlsplit(start.url).query))
    assert start.url.startswith(f"{issuer.url}/authorize?")
    assert (asked["response_type"], asked["client_id"], asked["redirect_uri"]) == ("code", CLIENT_ID, BACK)
    assert (asked["code_challenge_method"], asked["scope"].split()[0]) == ("S256", "openid")
    assert len(asked["state"]) >= 32
    assert len(asked["nonce"]) >= 32
    assert "hush" not in start.url + start.cookie


async def test_who_comes_back_is_who_the_issuer_says(issuer: FakeIssuer) -> None:
    flow = login(issuer)
    start = await flow.begin(BACK)
    principal = await flow.finish(**approve(issuer, start, sub="grace", scope="runs"), cookie=start.cookie)
    assert (principal.tenant_id, principal.user_id, principal.scopes) == ("a", "grace", frozenset({"runs"}))
    assert issuer.forms[0]["redirect_uri"] == BACK
    assert issuer.forms[0]["client_id"] == CLIENT_ID


@pytest.mark.parametrize(
    ("offered", "in_header"),
    [(None, True), (["client_secret_basic", "client_secret_post"], True), (["client_secret_post"], False)],
)
async def test_the_client_proves_itself_as_the_issuer_offers(
    issuer: FakeIssuer, offered: list[str] | None, in_header: bool
) -> None:
    if offered is not None:
        issuer.discovery["token_endpoint_auth_methods_supported"] = offered
    flow = login(issuer, "hush")
    start = await flow.begin(BACK)
    await flow.finish(**approve(issuer, start), cookie=start.cookie)
    assert (issuer.authorization[0] is not None) is in_header
    assert ("client_secret" in issuer.forms[0]) is not in_header


async def test_a_login_ends_only_in_the_browser_that_began_it(issuer: FakeIssuer) -> None:
    flow = login(issuer)
    start, other = await flow.begin(BACK), await flow.begin(BACK)
    answer = approve(issuer, start)
    for wrong in (None, "", "x", other.cookie, start.cookie[:-1]):
        with pytest.raises(Unauthenticated):
            await flow.finish(**answer, cookie=wrong)
    for state in ("", "x", "\ud800"):
        with pytest.raises(Unauthenticated):
            await flow.finish(answer["code"], state, start.cookie)
    assert issuer.forms == []


@pytest.mark.parametrize("claims", [{"nonce": "another"}, {"aud": "another"}, {"tenant": None}, {"exp": 1}])
async def test_an_id_token_that_does_not_hold_is_no_login(issuer: FakeIssuer, claims: dict[str, Any]) -> None:
    flow = login(issuer)
    start = await flow.begin(BACK)
    with pytest.raises(Unauthenticated):
        await flow.finish(**approve(issuer, start, **claims), cookie=start.cookie)


async def test_a_code_works_once_and_a_made_up_one_never(issuer: FakeIssuer) -> None:
    flow = login(issuer)
    start = await flow.begin(BACK)
    answer = approve(issuer, start)
    await flow.finish(**answer, cookie=start.cookie)
    for code in (answer["code"], "made-up", "", "&code=x"):
        with pytest.raises(Unauthenticated):
            await flow.finish(code, answer["state"], start.cookie)


async def test_an_issuer_that_is_down_is_not_the_users_fault(issuer: FakeIssuer) -> None:
    flow = login(issuer)
    start = await flow.begin(BACK)
    answer = approve(issuer, start)
    issuer.status = 503
    with pytest.raises(UpstreamError):
        await flow.finish(**answer, cookie=start.cookie)
