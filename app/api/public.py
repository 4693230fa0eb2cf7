"""What answers without a credential, and how large a body may be: the policy of the HTTP door, in one place.

Everything that is not named here needs a Principal. A route is added here on purpose or not at all;
tests/api/test_route_walk.py calls every other one without a credential.
"""

from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Final

from app.settings import Settings

SESSION_COOKIE: Final = "pilothouse_session"
LOGIN_COOKIE: Final = "pilothouse_login"

HEALTH: Final = frozenset({"/healthz", "/readyz"})
LOGIN: Final = frozenset({"/login", "/login/oidc", "/login/callback", "/logout"})
PUBLIC: Final = HEALTH | LOGIN
# A scraper on the same machine needs no key.
LOOPBACK: Final = frozenset({"/metrics"})
# Browsers cannot send headers with a WebSocket, so this one may take its key from the first message instead.
SELF_AUTHENTICATING_SOCKETS: Final = frozenset({"/api/ai/chat/ws"})

_FORWARDED: Final = ("forwarded", "x-forwarded-for", "x-real-ip", "via")

CONSOLE: Final = "/console"
V1: Final = "/v1/"
_LARGE: Final = frozenset({"/api/ai/documents", "/api/ai/tables", "/api/ai/jobs", "/api/ai/usage/reconcile"})
_MULTIPART_FRAME_BYTES: Final = 64 * 1024
# JSON may spell one character as an escaped surrogate pair, twelve bytes.
_BYTES_A_CHARACTER: Final = 12
_SMALL_FRAME_BYTES: Final = 32 * 1024

CONSOLE_CSP: Final = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob: data:; connect-src 'self'; "
    "script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; frame-src 'none'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
API_CSP: Final = "default-src 'none'; frame-ancestors 'none'"


def in_console(path: str) -> bool:
    """Whether the path belongs to the mounted console; its front door `/` counts as well."""
    return path in {"/", CONSOLE} or path.startswith(CONSOLE + "/")


def needs_principal(kind: str, path: str) -> bool:
    """Whether a request to `path` is refused without a credential. `kind` is the ASGI scope's type."""
    return path not in PUBLIC and not (kind == "websocket" and path in SELF_AUTHENTICATING_SOCKETS)


def is_open_to(peer: str, headers: Mapping[str, str], path: str) -> bool:
    """Whether `path` answers without a credential because of who asks; `headers` by lower-case names.

    What a proxy on this machine forwards comes from elsewhere, whatever address it has here.
    """
    return path in LOOPBACK and _is_loopback(peer) and not any(name in headers for name in _FORWARDED)


def _is_loopback(peer: str) -> bool:
    try:
        address = ip_address(peer)
    except ValueError:
        return False  # a socket that has no address, or a test's
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def body_limit_bytes(settings: Settings, path: str, content_type: str) -> int:
    """How many bytes a request's body may have."""
    if in_console(path) or (path in _LARGE and content_type.startswith("multipart/")):
        return settings.max_upload_bytes + _MULTIPART_FRAME_BYTES
    if path in _LARGE or path.startswith(V1):
        return settings.max_json_bytes
    return small_body_bytes(settings)


def small_body_bytes(settings: Settings) -> int:
    """Bounds the JSON of everything but documents: room for the longest message in its widest spelling."""
    return settings.max_message_chars * _BYTES_A_CHARACTER + _SMALL_FRAME_BYTES


def security_headers(path: str, present: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """The headers that every response carries; `present` are those it has of its own, which may be stricter."""
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        # Not "no-referrer": under it browsers send `Origin: null` with the login form.
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
    ]
    if b"content-security-policy" not in present:
        headers.append((b"content-security-policy", (CONSOLE_CSP if in_console(path) else API_CSP).encode()))
    if b"cache-control" not in present and not in_console(path):
        headers.append((b"cache-control", b"no-store"))
    return [header for header in headers if header[0] not in present]
