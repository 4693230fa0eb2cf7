"""The way into the console: a key in a form, a one-time link, or the operator's OIDC issuer.

Every way ends in the same signed cookie, HttpOnly and SameSite=Lax. Nothing here can be framed or scripted.
"""

import re
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from app.api.deps import Bench
from app.api.pages import sign_in
from app.api.public import CONSOLE, LOGIN_COOKIE, SESSION_COOKIE
from app.records import Principal
from graphs.errors import PilothouseError, QuotaExhausted, Unauthenticated, UpstreamError

router = APIRouter(include_in_schema=False)

_CONSOLE_PATH: Final = re.compile(r"/console(?:/[A-Za-z0-9_-]+)*/?")
LOGIN_COOKIE_S: Final = 10 * 60
MAX_KEY_CHARS: Final = 16_384


@router.get("/login")
async def login_page(request: Request, bench: Bench) -> Response:
    """The form; with a `token` from the printed link, straight through."""
    token = request.query_params.get("token")
    wanted = _local(request.query_params.get("next"))
    if token is None:
        return _page(bench, wanted)
    try:
        return _enter(request, bench, bench.login_tokens.redeem(token), wanted)
    except Unauthenticated:
        return _page(bench, wanted, "This link was used already or is too old. Sign in with a key.", 401)


@router.post("/login")
async def log_in(request: Request, bench: Bench) -> Response:
    async with request.form(max_files=0, max_fields=4, max_part_size=MAX_KEY_CHARS) as form:
        key, wanted = form.get("key"), _local(form.get("next"))
    address = request.client.host if request.client else ""
    try:
        principal = await bench.access.authenticate(None, key.strip() if isinstance(key, str) else None, address)
    except QuotaExhausted as error:
        wait = f"Too many wrong keys. Try again in {int(error.retry_after_s or 60)} seconds."
        return _page(bench, wanted, wait, 429)
    except Unauthenticated:
        return _page(bench, wanted, "That key does not open this door. Check for missing characters.", 401)
    return _enter(request, bench, principal, wanted)


@router.get("/login/oidc")
async def begin_oidc(request: Request, bench: Bench) -> Response:
    if bench.oidc_login is None:
        return _page(bench, CONSOLE, "Single sign-on is not set up here.", 404)
    try:
        begun = await bench.oidc_login.begin(str(request.url_for("finish_oidc")))
    except UpstreamError:
        return _page(bench, CONSOLE, "The identity provider does not answer. Try again, or sign in with a key.", 502)
    response = RedirectResponse(begun.url, 303)
    _set_cookie(request, response, LOGIN_COOKIE, begun.cookie, LOGIN_COOKIE_S)
    return response


@router.get("/login/callback")
async def finish_oidc(request: Request, bench: Bench) -> Response:
    code, state = request.query_params.get("code", ""), request.query_params.get("state", "")
    if bench.oidc_login is None:
        return _page(bench, CONSOLE, "Single sign-on is not set up here.", 404)
    try:
        principal = await bench.oidc_login.finish(code, state, request.cookies.get(LOGIN_COOKIE))
    except PilothouseError as error:
        status = 401 if isinstance(error, Unauthenticated) else 502
        return _page(bench, CONSOLE, "Single sign-on did not succeed. Start again.", status)
    response = _enter(request, bench, principal, CONSOLE)
    response.delete_cookie(LOGIN_COOKIE, path="/login")
    return response


@router.get("/logout")
async def log_out() -> Response:
    response = RedirectResponse("/login", 303)
    response.delete_cookie(SESSION_COOKIE, path="/")
    return response


def _enter(request: Request, bench: Bench, principal: Principal, wanted: str) -> Response:
    response = RedirectResponse(wanted, 303)
    _set_cookie(request, response, SESSION_COOKIE, bench.sessions.issue(principal), bench.sessions.max_age_s)
    return response


def _set_cookie(request: Request, response: Response, name: str, value: str, max_age_s: int) -> None:
    response.set_cookie(
        name,
        value,
        max_age=max_age_s,
        path="/login" if name == LOGIN_COOKIE else "/",
        httponly=True,
        samesite="lax",
        secure=request.scope["scheme"] == "https",
    )


def _local(wanted: Any) -> str:
    """Where to go after the login: a plain path of the console, whatever was asked for."""
    return wanted if isinstance(wanted, str) and _CONSOLE_PATH.fullmatch(wanted) else CONSOLE


def _page(bench: Bench, wanted: str, trouble: str = "", status: int = 200) -> Response:
    return sign_in(wanted, trouble, status=status, oidc=bench.oidc_login is not None)
