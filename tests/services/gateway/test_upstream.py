from datetime import UTC, datetime

import pytest

from app.services.gateway.upstream import MAX_RETRY_AFTER_S, failure, retry_after
from graphs.errors import UpstreamError, UpstreamRateLimited, UpstreamRejected, UpstreamUnauthorized

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


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
def test_the_wait_is_what_the_headers_say_within_our_cap(headers: dict[str, str], wait_s: float | None) -> None:
    assert retry_after(headers, NOW) == wait_s


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"code": 429}, UpstreamRateLimited),
        ({"code": "429"}, UpstreamRateLimited),
        ({"code": "rate_limit_exceeded"}, UpstreamRateLimited),
        ({"status": "RESOURCE_EXHAUSTED"}, UpstreamRateLimited),
        ({"code": 401}, UpstreamUnauthorized),
        ({"type": "invalid_request_error"}, UpstreamRejected),
        ({"code": 500}, UpstreamError),
        ({"code": 7}, UpstreamError),
        ({"message": "overloaded"}, UpstreamError),
        ({}, UpstreamError),
        ("overloaded", UpstreamError),
        (["overloaded"], UpstreamError),
        (None, UpstreamError),
    ],
)
def test_an_error_inside_a_200_is_known_by_its_code(body: object, error: type[UpstreamError]) -> None:
    assert type(failure("m", 200, body)) is error


def test_a_code_that_is_a_sentence_is_not_repeated() -> None:
    assert failure("m", 400, {"code": "the prompt was: my secret"}).message == "m answered with an error (400)"
