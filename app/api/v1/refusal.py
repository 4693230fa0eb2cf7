"""How `/v1` says no: the status, the headers and the body of a failure, in OpenAI's wire or in Anthropic's.

Clients of both retry by themselves; the gateway has retried already, so they are told when that is pointless.

What is no request of the wire, or asks for what is not served, is 400. A field whose value we do not take is 422, where
the vendors say 400: who asks for a billion choices, or `best_of`, made no mistake in form. Either way the type is
`invalid_request_error` and `param` names the field; what a vendor refuses itself stays 400.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from app.api.errors import Refused, status_of
from graphs.errors import Invalid, PilothouseError

MESSAGES: Final = "/v1/messages"
LONGEST_CLIENT_WAIT_S: Final = 60.0  # beyond it both clients would wait a second or two only, and ask in vain

_STATUS: Final[Mapping[str, int]] = {
    "malformed_request": 400,
    "malformed_json": 400,
    "unsupported": 400,
    "prompt_too_long": 400,
    "upstream_too_long": 400,
    "all_unavailable": 503,
    "upstream_rejected": 400,  # the client's own request, as the server behind us read it
}
# OpenAI's own word, by which LangChain and others know that a prompt has to be shortened.
_CODES: Final = {"prompt_too_long": "context_length_exceeded", "upstream_too_long": "context_length_exceeded"}
_OPENAI: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
    500: "server_error",
    502: "upstream_error",
    503: "upstream_error",
    504: "upstream_error",
}
_ANTHROPIC: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_INTERNAL: Final = "The server failed; the log has the cause."


class BadRequest(Invalid):
    """A body that is not a request at all; HTTP 400."""

    code = "malformed_request"


class Unsupported(Invalid):
    """A field of the wire that this server does not serve; HTTP 400. Leaving it out would change what is asked."""

    code = "unsupported"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A failure as it is told."""

    status: int
    code: str
    message: str
    field: str | None = None
    retry_after_s: float | None = None
    retry: bool | None = None
    """Whether the client should ask again by itself; None where it knows."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        found: list[tuple[bytes, bytes]] = []
        if self.retry_after_s is not None:
            found.append((b"retry-after", str(max(1, -int(-self.retry_after_s // 1))).encode()))
        if self.retry is not None:
            found.append((b"x-should-retry", b"true" if self.retry else b"false"))
        if self.status == 401:
            found.append((b"www-authenticate", b"Bearer"))
        return found

    def body(self, path: str, request_id: str) -> bytes:
        """The error body of the wire that `path` speaks."""
        return orjson.dumps(self.anthropic(request_id) if path.startswith(MESSAGES) else self.openai())

    def openai(self) -> dict[str, Any]:
        kind = _OPENAI.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.field, "code": self.code}}

    def anthropic(self, request_id: str) -> dict[str, Any]:
        told = f"{self.field}: {self.message}" if self.field else self.message
        kind = _ANTHROPIC.get(self.status, "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": told}, "request_id": request_id}


def refusal(error: Exception) -> Refusal:
    """What `error` looks like outside. What is not an error of ours, or is internal, keeps its message to itself."""
    if isinstance(error, Refused):
        return Refusal(error.status_code, error.code, error.detail, _written(error.field), error.retry_after_s)
    if not isinstance(error, PilothouseError):
        return Refusal(500, "internal_error", _INTERNAL)
    told = _INTERNAL if error.kind == "internal" else _written(error.message)
    status = _STATUS.get(error.code) or status_of(error.kind, error.code)
    retry: bool | None = None
    if error.kind in {"exhausted", "upstream"}:
        retry = error.retry_after_s is not None and error.retry_after_s <= LONGEST_CLIENT_WAIT_S
    return Refusal(
        status, _CODES.get(error.code, error.code), told or "", _written(error.field), error.retry_after_s, retry
    )


def _written(text: str | None) -> str | None:
    """The text, with what no JSON can hold replaced: a message may name what the caller sent."""
    return text if text is None else text.encode("utf-8", "replace").decode()
