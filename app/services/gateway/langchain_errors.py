"""Turns what a vendor's LangChain integration raises into our errors, without knowing the vendor.

First by the HTTP answer that SDKs hang on their exceptions, which says most; then by LangChain's own classes; then by
what the exception is a kind of.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_core import exceptions as langchain

from app.services.gateway.upstream import failure, retry_after
from graphs.errors import (
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)

BY_CLASS: Final[Mapping[type[langchain.ModelError], type[UpstreamError]]] = {
    langchain.ContextOverflowError: UpstreamTooLong,
    langchain.ModelAuthenticationError: UpstreamUnauthorized,
    langchain.ModelPermissionDeniedError: UpstreamUnauthorized,
    langchain.ModelNotFoundError: UpstreamNotFound,
    langchain.ModelRateLimitError: UpstreamRateLimited,
    langchain.ModelTimeoutError: UpstreamTimeout,
    langchain.ModelInvalidRequestError: UpstreamRejected,
    langchain.ModelConnectionError: UpstreamError,
    langchain.ModelAPIError: UpstreamError,
}


def error_of(model: str, error: Exception, secret: str = "") -> UpstreamError:
    """The error for whatever a chat model raised. Its own words go to the cause alone, with the key taken out."""
    for raised in _causes(error):
        if isinstance(raised, langchain.ContextOverflowError):
            return _told(UpstreamTooLong, model, raised, secret)
        if (status := _status(raised)) is not None:
            headers = getattr(getattr(raised, "response", None), "headers", None)
            wait_s = retry_after(headers) if isinstance(headers, Mapping) else None
            return failure(model, status, _body(raised), secret=secret, retry_after_s=wait_s)
    for raised in _causes(error):
        for known, ours in BY_CLASS.items():
            if isinstance(raised, known):
                return _told(ours, model, raised, secret)
        # Of httpx, grpc and the SDKs alike: their classes for it have no common base.
        if isinstance(raised, TimeoutError) or any("Timeout" in base.__name__ for base in type(raised).__mro__):
            return _told(UpstreamTimeout, model, raised, secret)
    return _told(UpstreamError, model, error, secret)


def _told(kind: type[UpstreamError], model: str, error: Exception, secret: str) -> UpstreamError:
    raised = failure(model, 0, str(error), secret=secret)
    told = kind(f"{model} failed ({type(error).__name__})")
    told.__cause__ = raised.__cause__
    return told


def _causes(error: BaseException | None) -> Iterator[Exception]:
    for _ in range(8):  # a cause can lead back to itself
        if isinstance(error, Exception):
            yield error
        error = error.__cause__ if error is not None else None


def _status(error: Exception) -> int | None:
    """The HTTP status, where SDKs keep it: OpenAI, Anthropic, Mistral, Cohere; Google; botocore."""
    for name in ("status_code", "http_status", "code"):
        value = getattr(error, name, None)
        value = getattr(value, "value", value)
        if isinstance(value, int) and 300 <= value < 600:
            return value
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        value = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        value = getattr(response, "status_code", None)
    return value if isinstance(value, int) and 300 <= value < 600 else None


def _body(error: Exception) -> Any:
    """The vendor's error object, else its words."""
    body = getattr(error, "body", None)
    if isinstance(body, Mapping):
        inner = body.get("error", body)
        return inner if isinstance(inner, Mapping) else body
    response = getattr(error, "response", None)
    if isinstance(response, Mapping) and isinstance(inner := response.get("Error"), Mapping):
        return {"code": inner.get("Code"), "message": inner.get("Message")}
    return str(error)
