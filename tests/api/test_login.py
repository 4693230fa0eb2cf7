"""The way into the console: a key or a one-time link becomes a cookie that scripts cannot read."""

import httpx
import pytest

from app.api.app import create_api
from app.records import Principal
from app.services.access.login import LoginStart
from app.settings import Settings
from tests.api.served import Served
from tests.services.access.conftest import FakeIssuer, issuer, signing_keys
from tests.services.access.test_login import approve, login

__all__ = ["issuer", "signing_keys"]  # fixtures of the access tests, used here by name

ANN = Principal("acme", "ann", frozenset({"chat"}))


def signed_in(server: Served, client: httpx.Client, who: str = "ann", **form: str) -> httpx.Response:
    return client.post("/login", data={"key": server.keys[who], **form})


def test_a_key_opens_a_session(server: Served, nobody: httpx.Client) -> None:
    answer = signed_in(server, nobody)
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert nobody.get("/api/ai/conversations").status_code == 200


def test_a_wrong_key_is_told_without_being_repeated(nobody: httpx.Client) -> None:
    answer = nobody.post("/login", data={"key": "<script>wrong</script>", "next": '"><script>'})
    assert answer.status_code == 401
    assert "does not open" in answer.text
    assert "<script" not in answer.text
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("form", [{}, {"key": ""}, {"key": "\x00"}, {"other": "x"}])
def test_a_form_without_a_key_stays_outside(nobody: httpx.Client, form: dict[str, str]) -> None:
    assert nobody.post("/login", data=form).status_code == 401


def test_a_link_logs_in_once(server: Served, nobody: httpx.Client) -> None:
    token = server.bench.login_tokens.issue(ANN)
    first = nobody.get("/login", params={"token": token})
    assert (first.status_code, first.headers["location"]) == (303, "/console")
    assert nobody.get("/api/ai/conversations").status_code == 200
    with server.client() as later:
        assert later.get("/login", params={"token": token}).status_code == 401
        assert later.get("/api/ai/conversations").status_code == 401


def test_the_printed_link_opens_the_owners_session(server: Served, nobody: httpx.Client) -> None:
    link = httpx.URL(server.bench.login_link())
    assert nobody.get(link.raw_path.decode()).status_code == 303
    assert nobody.get("/api/ai/keys").status_code == 200


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/console/../login",
        "/console\r\nX: y",
        "javascript:x",
    ],
)
def test_a_login_leads_nowhere_but_to_the_console(server: Served, nobody: httpx.Client, wanted: str) -> None:
    assert signed_in(server, nobody, next=wanted).headers["location"] == "/console"


def test_a_person_is_shown_the_way_in(nobody: httpx.Client) -> None:
    answer = nobody.get("/console", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (302, "/login?next=/console")
    page = nobody.get("/login")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http://" not in page.text.replace("http://www.w3.org", "")


def test_logging_out_ends_the_session(server: Served, nobody: httpx.Client) -> None:
    signed_in(server, nobody)
    assert nobody.get("/logout").status_code == 303
    assert nobody.get("/api/ai/conversations").status_code == 401


def test_a11_a_session_ends_with_its_key(server: Served, owner: httpx.Client, nobody: httpx.Client) -> None:
    body = {"tenantId": "acme", "userId": "max", "scopes": ["chat"], "name": "short"}
    made = owner.post("/api/ai/keys", json=body).json()
    nobody.post("/login", data={"key": made["key"]})
    assert nobody.get("/api/ai/conversations").status_code == 200
    owner.delete(f"/api/ai/keys/{made['keyId']}")
    assert nobody.get("/api/ai/conversations").status_code == 401


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "W10.x.y"])
def test_a_forged_cookie_opens_nothing(nobody: httpx.Client, cookie: str) -> None:
    assert nobody.get("/api/ai/runs", headers={"Cookie": f"pilothouse_session={cookie}"}).status_code == 401


@pytest.mark.parametrize(
    "headers", [{"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"}]
)
def test_a18_a_cookie_counts_only_for_pages_of_ours(
    server: Served, nobody: httpx.Client, headers: dict[str, str]
) -> None:
    signed_in(server, nobody)
    assert nobody.get("/api/ai/conversations", headers=headers).status_code == 401
    assert nobody.post("/api/ai/chat", json={"message": "say x"}, headers=headers).status_code in {401, 403}
    same = {"Sec-Fetch-Site": "same-origin", "Origin": server.url}
    assert nobody.post("/api/ai/chat", json={"message": "say x"}, headers=same).status_code == 200


def test_a18_a_cookie_does_not_write_without_a_sign_of_where_it_comes_from(
    server: Served, nobody: httpx.Client
) -> None:
    signed_in(server, nobody)
    assert nobody.post("/api/ai/chat", json={"message": "say x"}).status_code == 401


def test_single_sign_on_says_when_it_is_not_set_up(nobody: httpx.Client) -> None:
    for path in ("/login/oidc", "/login/callback?code=x&state=y"):
        assert nobody.get(path).status_code == 404
    assert "single sign-on" not in nobody.get("/login").text.lower()


async def test_a_person_who_comes_too_early_sees_a_page_that_asks_again() -> None:
    transport = httpx.ASGITransport(create_api(Settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        for path in ("/", "/console", "/login"):
            page = await client.get(path, headers={"Accept": "text/html"})
            assert (page.status_code, page.headers["retry-after"]) == (503, "2")
            assert 'http-equiv="refresh"' in page.text


async def test_single_sign_on_ends_in_a_session(
    server: Served, issuer: FakeIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.bench, "oidc_login", login(issuer))
    async with httpx.AsyncClient(base_url=server.url, trust_env=False) as browser:
        assert "/login/oidc" in (await browser.get("/login")).text
        begun = await browser.get("/login/oidc")
        back = approve(issuer, LoginStart(begun.headers["location"], ""), sub="grace")
        forged = await browser.get("/login/callback", params=back | {"state": "x"})
        assert (forged.status_code, "set-cookie" in forged.headers) == (401, False)
        done = await browser.get("/login/callback", params=back)
        assert (done.status_code, done.headers["location"]) == (303, "/console")
        assert issuer.forms[0]["redirect_uri"] == f"{server.url}/login/callback"
        assert (await browser.get("/api/ai/conversations")).status_code == 200
        assert (await browser.get("/login/callback", params=back)).status_code == 401
