"""The pages that are shown before there is a session: signing in, and waiting for the server to come up.

Each is whole in itself: no script, no other request, nothing that could be framed.
"""

from functools import cache
from html import escape
from pathlib import Path
from string import Template
from typing import Final

from starlette.responses import HTMLResponse

FOLDER: Final = Path(__file__).with_name("templates")
# form-action also governs where a form's redirect may lead: the console, on this host.
CSP: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


def sign_in(wanted: str, trouble: str = "", *, oidc: bool = False, status: int = 200) -> HTMLResponse:
    """The form for a key; `wanted` is where the console opens, `trouble` what went wrong before."""
    main = _template("login").substitute(
        next=escape(wanted, quote=True),
        trouble=f'<p class="trouble" role="alert">{escape(trouble)}</p>' if trouble else "",
        described='aria-invalid="true"' if trouble else "",
        oidc='<a class="other" href="/login/oidc">Sign in with single sign-on</a>' if oidc else "",
    )
    return _framed("Sign in", main, status)


def starting(retry_after_s: int) -> HTMLResponse:
    """A page that asks again by itself."""
    main = _template("starting").substitute()
    head = f'<meta http-equiv="refresh" content="{retry_after_s}">'
    return _framed("Starting", main, 503, head, {"Retry-After": str(retry_after_s)})


def _framed(title: str, main: str, status: int, head: str = "", headers: dict[str, str] | None = None) -> HTMLResponse:
    page = _template("frame").substitute(title=title, main=main, head=head)
    return HTMLResponse(page, status, {"Content-Security-Policy": CSP, **(headers or {})})


@cache
def _template(name: str) -> Template:
    return Template((FOLDER / f"{name}.html").read_text(encoding="utf-8"))
