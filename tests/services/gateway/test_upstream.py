"""What vendors say when they fail, as our kinds. Their own clients' exceptions are the list of what there is."""

import inspect
from datetime import UTC, datetime
from typing import Any, get_args

import anthropic
import openai
import pytest
from anthropic._error_classes import ERROR_CLASSES
from anthropic.types.shared import ErrorType

from app.services.gateway.upstream import BY_CODE, MAX_RETRY_AFTER_S, failure, retry_after
from graphs.errors import (
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
Kind = type[UpstreamError]


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:00 GMT"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 2026 12:01:00"}, 60.0),
        ({"retry-after": "Thu, 01 Jan 2020 12:01:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 01 Jan 2100 12:01:00 GMT"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "1e9"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "99 Foo 9999999999 99:99:99"}, None),
        ({"retry-after": "Thu, 01 Jan 99999999999999999999 12:01:00 GMT"}, None),
        ({"retry-after": ""}, None),
    ],
)
def test_u04_the_wait_is_what_the_headers_say_within_our_cap(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after(headers, NOW) == wait_s


BY_CLASS: dict[str, Kind] = {
    "AuthenticationError": UpstreamUnauthorized,
    "OAuthError": UpstreamUnauthorized,
    "PaymentRequiredError": UpstreamUnauthorized,
    "PermissionDeniedError": UpstreamUnauthorized,
    "NotFoundError": UpstreamNotFound,
    "RequestTimeoutError": UpstreamTimeout,
    "GatewayTimeoutError": UpstreamTimeout,
    "ConflictError": UpstreamError,
    "ClientClosedRequestError": UpstreamError,
    "ContentTooLargeError": UpstreamTooLong,
    "RequestTooLargeError": UpstreamTooLong,
    "RateLimitError": UpstreamRateLimited,
    "BadRequestError": UpstreamRejected,
    "UnprocessableEntityError": UpstreamRejected,
    "PreconditionFailedError": UpstreamRejected,
    "RequestHeaderFieldsTooLargeError": UpstreamRejected,
    "InternalServerError": UpstreamError,
    "HTTPNotImplementedError": UpstreamError,
    "ServiceUnavailableError": UpstreamError,
    "OverloadedError": UpstreamError,
}


def exceptions_with_status(vendor: Any) -> set[type[Any]]:
    """Every exception of the vendor's client that stands for an HTTP status."""
    base = vendor.APIStatusError
    members = [*inspect.getmembers(vendor, inspect.isclass), *inspect.getmembers(vendor._exceptions, inspect.isclass)]
    return {each for _, each in members if issubclass(each, base) and each is not base}


@pytest.mark.parametrize("vendor", [openai, anthropic], ids=["openai", "anthropic"])
def test_u05_every_exception_of_the_vendors_own_client_has_its_kind(vendor: Any) -> None:
    found = exceptions_with_status(vendor)
    assert len(found) >= 8
    for each in found:
        # Those that stand for one code of a status are the status's own for us; the codes have their test below.
        expected = next(BY_CLASS[base.__name__] for base in each.__mro__ if base.__name__ in BY_CLASS)
        assert type(failure("m", getattr(each, "status_code", 500), {})) is expected, each


@pytest.mark.parametrize(
    ("status", "code"), sorted((status, code) for status, code in ERROR_CLASSES if code is not None), ids=str
)
def test_u05_every_error_code_that_anthropic_documents_has_a_kind_that_fits_its_status(status: int, code: str) -> None:
    kind = type(failure("m", status, {"type": "x_error", "details": {"error_code": code}}))
    assert kind is (UpstreamUnauthorized if code.endswith("spend_limit_reached") else type(failure("m", status, {})))


ANTHROPIC: dict[str, tuple[int, Kind]] = {
    "invalid_request_error": (400, UpstreamRejected),
    "authentication_error": (401, UpstreamUnauthorized),
    "billing_error": (402, UpstreamUnauthorized),
    "permission_error": (403, UpstreamUnauthorized),
    "not_found_error": (404, UpstreamNotFound),
    "request_too_large": (413, UpstreamTooLong),
    "rate_limit_error": (429, UpstreamRateLimited),
    "api_error": (500, UpstreamError),
    "timeout_error": (504, UpstreamTimeout),
    "overloaded_error": (529, UpstreamError),
    "conflict_error": (409, UpstreamError),
    # Of an API that we do not call; named here so that the list is whole.
    "memory_precondition_failed_error": (412, UpstreamRejected),
    "memory_path_conflict_error": (409, UpstreamError),
}


def test_the_list_of_anthropics_error_types_is_the_clients_own() -> None:
    assert ANTHROPIC.keys() == {*get_args(ErrorType), "request_too_large"}


@pytest.mark.parametrize(("code", "told"), ANTHROPIC.items(), ids=ANTHROPIC.keys())
def test_u05_every_error_type_of_anthropic_is_one_kind_with_its_status_and_inside_a_200(
    code: str, told: tuple[int, Kind]
) -> None:
    status, kind = told
    body = {"type": code, "message": "no"}
    assert type(failure("m", status, body)) is kind
    if not code.startswith("memory"):
        assert type(failure("m", 200, body)) is kind


LLAMACPP = {"code": 400, "type": "exceed_context_size_error", "message": "request (2018 tokens) exceeds the available"}
SAID: list[tuple[int, Any, Kind]] = [
    # OpenAI
    (400, {"code": "context_length_exceeded", "type": "invalid_request_error"}, UpstreamTooLong),
    (401, {"code": "invalid_api_key", "type": "invalid_request_error"}, UpstreamUnauthorized),
    (403, {"code": "unsupported_country_region_territory"}, UpstreamUnauthorized),
    (403, {"code": "model_not_found", "type": "invalid_request_error"}, UpstreamNotFound),
    (404, {"code": "model_not_found", "type": "invalid_request_error"}, UpstreamNotFound),
    (429, {"code": "rate_limit_exceeded", "type": "requests"}, UpstreamRateLimited),
    (429, {"code": "insufficient_quota", "type": "insufficient_quota"}, UpstreamUnauthorized),
    (429, {"code": "rate_limit_exceeded", "message": "Request too large for gpt-x: Limit 30000"}, UpstreamTooLong),
    (400, {"code": "content_policy_violation"}, UpstreamRejected),
    (500, {"type": "server_error"}, UpstreamError),
    (503, {"type": "server_error", "code": "rate_limit_exceeded"}, UpstreamRateLimited),
    # Anthropic
    (400, {"type": "invalid_request_error", "message": "prompt is too long: 2 tokens > 1 maximum"}, UpstreamTooLong),
    (400, {"message": "input length and `max_tokens` exceed context limit: 9 + 9 > 10"}, UpstreamTooLong),
    (400, {"message": "Your credit balance is too low to access the Anthropic API."}, UpstreamUnauthorized),
    # llama.cpp, vLLM, Gemini, Groq, Mistral, Azure, Bedrock
    (400, LLAMACPP, UpstreamTooLong),
    (503, {"code": 503, "type": "unavailable_error", "message": "Loading model"}, UpstreamError),
    (501, {"code": 501, "type": "not_supported_error"}, UpstreamError),
    (400, {"type": "BadRequestError", "message": "This model's maximum context length is 4096"}, UpstreamTooLong),
    (404, {"object": "error", "type": "NotFoundError", "code": 404}, UpstreamNotFound),
    (400, {"status": "INVALID_ARGUMENT", "message": "API key not valid. Please pass a valid"}, UpstreamUnauthorized),
    (400, {"status": "INVALID_ARGUMENT", "message": "x exceeds the maximum number of tokens"}, UpstreamTooLong),
    (503, {"status": "UNAVAILABLE"}, UpstreamError),
    (400, {"code": "model_decommissioned"}, UpstreamNotFound),
    (404, {"code": "DeploymentNotFound"}, UpstreamNotFound),
    (400, {"code": "ValidationException", "message": "Input is too long for requested model."}, UpstreamTooLong),
    # A word that contradicts its status gives way to it.
    (500, {"type": "authentication_error"}, UpstreamError),
    (400, {"type": "server_error"}, UpstreamRejected),
]


@pytest.mark.parametrize(("status", "body", "kind"), SAID, ids=str)
def test_u05_what_vendors_really_say_is_understood(status: int, body: Any, kind: Kind) -> None:
    assert type(failure("m", status, body)) is kind


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"code": 429}, UpstreamRateLimited),
        ({"code": "429"}, UpstreamRateLimited),
        ({"code": "rate_limit_exceeded"}, UpstreamRateLimited),
        ({"status": "RESOURCE_EXHAUSTED"}, UpstreamRateLimited),
        ({"code": 401}, UpstreamUnauthorized),
        ({"type": "invalid_request_error"}, UpstreamRejected),
        ({"message": "prompt is too long: 9 tokens"}, UpstreamTooLong),
        ({"code": 500}, UpstreamError),
        ({"code": 7}, UpstreamError),
        ({"message": "overloaded"}, UpstreamError),
        ({}, UpstreamError),
        ("overloaded", UpstreamError),
        (["overloaded"], UpstreamError),
        (None, UpstreamError),
    ],
)
def test_u07_an_error_inside_a_200_is_known_by_its_code(body: object, kind: Kind) -> None:
    assert type(failure("m", 200, body)) is kind


@pytest.mark.parametrize(
    "words", ["credit balance", "spend limit", "invalid api key", "your credit balance is too low"]
)
def test_a_caller_who_is_quoted_cannot_make_a_key_look_refused(words: str) -> None:
    quoted = {"type": "invalid_request_error", "message": f"tools.0.name: {words!r} is not a name"}
    assert type(failure("m", 400, quoted)) is UpstreamRejected


def test_a_code_that_is_a_sentence_is_not_repeated() -> None:
    assert failure("m", 400, {"code": "the prompt was: my secret"}).message == "m answered with an error (400)"


def test_every_code_is_listed_as_it_is_looked_up() -> None:
    assert all(code == code.lower() for code in BY_CODE)
