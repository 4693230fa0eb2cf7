"""What stands around Gradio's page: our head, in the page itself, and a Content-Security-Policy that fits it.

Gradio adds `head` and `css` by script after loading, too late for the theme. And its page has inline scripts: their
hashes go into the policy in place of 'unsafe-inline', so that an event handler or a script in an answer could not run
even if it got past the escaping. 'unsafe-eval' stays: Gradio's HTML component compiles its (constant) template.
"""

import base64
import re
from collections.abc import MutableMapping
from hashlib import sha256
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graphs.errors import Missing

_INLINE: Final = re.compile(rb"<script(?![^>]*\ssrc=)[^>]*>(.*?)</script>", re.DOTALL)
# It points at the root of the site, where there is none.
_MANIFEST: Final = re.compile(rb'<link rel="manifest"[^>]*>')
_HEAD: Final = b"<head>"
_FILES: Final = re.compile(r"/gradio_api/(upload|file|proxy|stream)")


class Frame:
    """Wraps the mounted page; everything but HTML passes through untouched.

    Not there: Gradio's routes for files, which know no owner. Whoever is signed in could fetch what another had sent,
    and everything sent would stay. The console sends documents to the API's own door.
    """

    def __init__(self, app: ASGIApp, head: str) -> None:
        self._app, self._head = app, head.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _FILES.match(_within(scope)):
            raise Missing("the console keeps no files")
        page = _Page(self._head, send)
        await self._app(_uncompressed(scope), receive, page)


class _Page:
    """Holds an HTML response back until it is whole."""

    def __init__(self, head: bytes, send: Send) -> None:
        self._head, self._send = head, send
        self._start: Message | None = None
        self._body = bytearray()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and _is_html(message):
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        body = _MANIFEST.sub(b"", bytes(self._body)).replace(_HEAD, _HEAD + self._head, 1)
        headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
        headers += [
            (b"content-length", str(len(body)).encode()),
            (b"content-security-policy", policy(body).encode()),
            (b"cache-control", b"no-store"),
        ]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def policy(page: bytes) -> str:
    """The policy under which exactly the inline scripts of `page` run, and nothing is fetched from elsewhere."""
    hashes = {base64.b64encode(sha256(script).digest()).decode() for script in _INLINE.findall(page)}
    scripts = " ".join(f"'sha256-{value}'" for value in sorted(hashes))
    return (
        f"default-src 'self'; script-src 'self' 'unsafe-eval' {scripts}; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; media-src 'none'; connect-src 'self'; font-src 'self'; frame-src 'none'; "
        "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )


def _is_html(start: Message) -> bool:
    return any(name.lower() == b"content-type" and value.startswith(b"text/html") for name, value in start["headers"])


def _uncompressed(scope: Scope) -> MutableMapping[str, Any]:
    """For the page alone: Gradio would hand over compressed bytes. Its assets stay compressed."""
    if _within(scope) not in {"", "/"}:
        return scope
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]}


def _within(scope: Scope) -> str:
    """The path under the mount."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
