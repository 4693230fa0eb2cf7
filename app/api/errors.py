"""Problem documents (RFC 9457): every refusal of the API has this one shape, and none repeats what was sent.

`code` never changes once published; `detail` is for people; `errors` names each field that is wrong, in camelCase.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.services.quota.refusals import RateLimited
from graphs.errors import PilothouseError

MEDIA_TYPE: Final = "application/problem+json"
_MAX_ERRORS: Final = 50
_MAX_NAME_CHARS: Final = 100

_BY_KIND: Final[Mapping[str, int]] = {
    "invalid": 422,
    "denied": 403,
    "missing": 404,
    "conflict": 409,
    "exhausted": 429,
    "upstream": 502,
    "internal": 500,
}
_BY_CODE: Final[Mapping[str, int]] = {
    "too_large": 413,
    "version_gone": 410,
    "index_damaged": 503,
    "unauthenticated": 401,
    "upstream_timeout": 504,
    "upstream_rate_limited": 503,
    "all_unavailable": 503,
    "store_unavailable": 503,
}
_CODE_BY_STATUS: Final[Mapping[int, str]] = {
    400: "malformed_request",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
}


class Refused(HTTPException):
    """A refusal that only HTTP knows of: a foreign host, a malformed body, a server that still starts."""

    def __init__(
        self, status: int, code: str, detail: str, *, field: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(status, detail)
        self.code, self.field, self.retry_after_s = code, field, retry_after_s


def status_of(kind: str, code: str) -> int:
    """The HTTP status of a failure; the code decides where its kind is too coarse."""
    return _BY_CODE.get(code) or _BY_KIND.get(kind, 500)


def problem(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    *,
    field: str | None = None,
    errors: Sequence[Mapping[str, str]] = (),
    retry_after_s: float | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The document as a response. `retry_after_s` is rounded up to whole seconds."""
    document: dict[str, Any] = {
        "type": f"urn:pilothouse:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "requestId": request_id,
    }
    if field is not None:
        document["field"] = field
    if errors:
        document["errors"] = list(errors)
    extra = dict(headers or {})
    if retry_after_s is not None:
        extra["Retry-After"] = str(max(1, -int(-retry_after_s // 1)))
    if status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    return Response(_json(document), status, extra, MEDIA_TYPE)


def from_error(error: PilothouseError, request_id: str) -> Response:
    """What an error of ours looks like outside. An internal one keeps its message to itself."""
    status = status_of(error.kind, error.code)
    detail = "The server failed; the log has the cause." if error.kind == "internal" else error.message
    errors = [{"field": error.field, "message": error.message, "code": error.code}] if error.field else []
    return problem(
        status,
        error.code,
        detail,
        request_id,
        field=error.field,
        errors=errors,
        retry_after_s=error.retry_after_s,
        headers=error.headers if isinstance(error, RateLimited) else None,
    )


def from_http(error: HTTPException, request_id: str) -> Response:
    if isinstance(error, Refused):
        return problem(
            error.status_code,
            error.code,
            error.detail,
            request_id,
            field=error.field,
            retry_after_s=error.retry_after_s,
        )
    code = _CODE_BY_STATUS.get(error.status_code, "refused")
    return problem(error.status_code, code, error.detail, request_id, headers=error.headers)


def unexpected(request_id: str) -> Response:
    return problem(500, "internal_error", "The server failed; the log has the cause.", request_id)


async def on_pilothouse_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, PilothouseError)
    return from_error(error, request.scope["request_id"])


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return from_http(error, request.scope["request_id"])


async def on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = field_errors(error.errors())
    named = [item["field"] for item in errors if item["field"]]
    detail = "; ".join(f"{item['field'] or 'body'}: {item['message']}" for item in errors[:3])
    return problem(
        422, "invalid_input", detail, request.scope["request_id"], field=named[0] if named else None, errors=errors
    )


def field_errors(found: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """pydantic's errors as `{field, message, code}`, the first of them where there are very many."""
    return [_field_error(item) for item in found[:_MAX_ERRORS]]


def _field_error(item: Mapping[str, Any]) -> dict[str, str]:
    """One of pydantic's errors without the input it is about."""
    place = item["loc"][1:] if item["loc"] and item["loc"][0] in _PLACES else item["loc"]
    field = ".".join(_shown(part) for part in place if part != "[key]")
    if item["type"] in _NOT_AN_OBJECT and not field:
        return {"field": "", "message": "send a JSON object with Content-Type: application/json", "code": item["type"]}
    return {"field": field, "message": str(item["msg"]).removeprefix("Value error, "), "code": str(item["type"])}


_PLACES: Final = frozenset({"body", "query", "path", "header"})
_NOT_AN_OBJECT: Final = frozenset({"missing", "model_attributes_type", "dict_type", "model_type"})


def _shown(part: object) -> str:
    return "".join(char for char in str(part)[:_MAX_NAME_CHARS] if char.isprintable())


def _json(document: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate in a caller's field name
        return orjson.dumps({name: _encodable(value) for name, value in document.items()})


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list | tuple):
        return [_encodable(item) for item in value]
    if isinstance(value, Mapping):
        return {name: _encodable(item) for name, item in value.items()}
    return value
