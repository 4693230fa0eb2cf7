"""Turns what a model server says when it fails into our errors.

The caller learns the model's name, the status and the vendor's error code; the vendor's own words can repeat the
prompt or the key, so they go to the operator alone, as the error's cause, with the key taken out. They are read only
where vendors put nothing else: for a prompt that is too long, an account that cannot pay, a key that does not hold.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from graphs.errors import (
    UpstreamError,
    UpstreamNotFound,
    UpstreamRateLimited,
    UpstreamRejected,
    UpstreamTimeout,
    UpstreamTooLong,
    UpstreamUnauthorized,
)

MAX_RETRY_AFTER_S: Final = 3_600.0
_EXCERPT_CHARS: Final = 500
_CODE: Final = re.compile(r"[A-Za-z][\w.-]{0,63}")

# By status, for errors whose code says no more. Cloudflare's 52x, which stand before most vendors: 522 and 524 are
# timeouts. What is not here is rejected from 300 to 499, and a failure of the server from 500 on.
BY_STATUS: Final[Mapping[int, type[UpstreamError]]] = {
    401: UpstreamUnauthorized,
    402: UpstreamUnauthorized,
    403: UpstreamUnauthorized,
    404: UpstreamNotFound,
    408: UpstreamTimeout,
    409: UpstreamError,  # refused now, not for what the call says; so are 425 and 499
    413: UpstreamTooLong,
    425: UpstreamError,
    429: UpstreamRateLimited,
    499: UpstreamError,
    504: UpstreamTimeout,
    522: UpstreamTimeout,
    524: UpstreamTimeout,
}

# By the error's code, type or status word, whatever the status beside it: vendors agree on words sooner than on
# numbers. Lower case. OpenAI, Anthropic, Gemini (gRPC's words), llama.cpp, Groq, Azure.
BY_CODE: Final[Mapping[str, type[UpstreamError]]] = {
    "context_length_exceeded": UpstreamTooLong,
    "exceed_context_size_error": UpstreamTooLong,
    "request_too_large": UpstreamTooLong,
    "string_above_max_length": UpstreamTooLong,
    "authentication_error": UpstreamUnauthorized,
    "invalid_api_key": UpstreamUnauthorized,
    "unauthenticated": UpstreamUnauthorized,
    "account_deactivated": UpstreamUnauthorized,
    # An account that cannot pay comes as 429 or 400, but no wait mends it: an operator has to act.
    "insufficient_quota": UpstreamUnauthorized,
    "billing_error": UpstreamUnauthorized,
    "billing_hard_limit_reached": UpstreamUnauthorized,
    "billing_not_active": UpstreamUnauthorized,
    "contract_spend_limit_reached": UpstreamUnauthorized,
    "enforced_spend_limit_reached": UpstreamUnauthorized,
    "permission_error": UpstreamUnauthorized,
    "permission_denied": UpstreamUnauthorized,
    "model_not_found": UpstreamNotFound,
    "model_decommissioned": UpstreamNotFound,
    "deploymentnotfound": UpstreamNotFound,
    "not_found_error": UpstreamNotFound,
    "not_found": UpstreamNotFound,
    "rate_limit_exceeded": UpstreamRateLimited,
    "rate_limit_error": UpstreamRateLimited,
    "resource_exhausted": UpstreamRateLimited,
    "timeout_error": UpstreamTimeout,
    "deadline_exceeded": UpstreamTimeout,
    "overloaded_error": UpstreamError,
    "api_error": UpstreamError,
    "server_error": UpstreamError,
    "conflict_error": UpstreamError,
    "unavailable": UpstreamError,
    "internal": UpstreamError,
}

# Words that stand for "the call is wrong" only where no status says which wrong.
_REJECTED: Final = frozenset({"invalid_request_error", "invalid_argument", "content_policy_violation"})

_TOO_LONG: Final = re.compile(
    r"prompt is too long|input is too long|(?:maximum|max) (?:context|prompt) length|context (?:length|window|limit)"
    r"|exceed\w* (?:the )?(?:model'?s? |available )?context|exceeds the maximum number of (?:input )?tokens"
    r"|request too large for",
    re.IGNORECASE,
)
# At the beginning only: further on, a vendor may be quoting the caller, who must not be able to switch a model off.
_NO_ACCOUNT: Final = re.compile(
    r"your credit balance is too low|api key not valid|invalid api key|you have reached your specified api usage limit",
    re.IGNORECASE,
)
_WORDS_AT: Final = frozenset({0, 400, 413, 422, 429})


class VendorAnswer(Exception):
    """The words of the vendor, for the operator."""


def failure(
    model: str, status: int, error: Any, *, secret: str = "", retry_after_s: float | None = None
) -> UpstreamError:
    """The error for an HTTP status and the vendor's error body (any JSON value, or text).

    Statuses below 300 come with a body that says it failed: what is inside decides then.
    """
    detail = error if isinstance(error, Mapping) else {}
    codes = _codes(detail)
    status = status if status >= 300 else _named_status(detail)
    told = f"{model} answered with an error ({', '.join([*([str(status)] if status else []), *codes[:1]])})"
    raised = _kind(status, codes, _message(error))(told, retry_after_s=retry_after_s)
    raised.__cause__ = VendorAnswer(_excerpt(error, secret))
    return raised


def _kind(status: int, codes: list[str], words: str) -> type[UpstreamError]:
    for code in codes:
        if (known := BY_CODE.get(code.lower())) is not None and not _contradicts(status, known):
            # "Request too large" is told as a rate limit, and no wait makes the request smaller.
            return _by_words(words) or known if known is UpstreamRateLimited else known
    if status in _WORDS_AT and (known := _by_words(words)) is not None:
        return known
    if (known := BY_STATUS.get(status)) is not None:
        return known
    rejected = any(code.lower() in _REJECTED for code in codes) if status == 0 else status < 500
    return UpstreamRejected if rejected else UpstreamError


def _contradicts(status: int, known: type[UpstreamError]) -> bool:
    """Whether a word of failure stands beside a status of refusal or the other way round: the status is right then."""
    if known is UpstreamError:
        return 300 <= status < 500
    return status >= 500 and issubclass(known, UpstreamRejected)


def _by_words(words: str) -> type[UpstreamError] | None:
    if _NO_ACCOUNT.match(words):
        return UpstreamUnauthorized
    return UpstreamTooLong if _TOO_LONG.search(words) else None


def _named_status(detail: Mapping[str, Any]) -> int:
    """The status that the body of an error inside a 200 names; 0 where it names none."""
    for key in ("code", "status", "http_code"):
        named = detail.get(key)
        if isinstance(named, int) and 400 <= named < 600:
            return named
        if isinstance(named, str) and re.fullmatch(r"[45]\d\d", named):
            return int(named)
    return 0


def _codes(detail: Mapping[str, Any]) -> list[str]:
    """The vendor's words for the error, the nearest first. Only those that are words, and so cannot carry contents."""
    inner = detail.get("details")
    named = [inner.get("error_code")] if isinstance(inner, Mapping) else []
    named += [detail.get(key) for key in ("code", "type", "status")]
    return [value for value in named if isinstance(value, str) and _CODE.fullmatch(value)]


def _message(error: Any) -> str:
    said = error.get("message", error) if isinstance(error, Mapping) else error
    return str(said)[: 4 * _EXCERPT_CHARS]


def _excerpt(error: Any, secret: str) -> str:
    text = _message(error)
    return (text.replace(secret, "***") if secret else text)[:_EXCERPT_CHARS]


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds to wait as the headers say, at most MAX_RETRY_AFTER_S; None if they are silent or nonsense."""
    milliseconds, seconds = headers.get("retry-after-ms"), headers.get("retry-after")
    for value, unit in ((milliseconds, 1e-3), (seconds, 1.0)):
        if value is not None and (wait := _number(value)) is not None:
            return _within(wait * unit)
    if seconds is None:
        return None
    try:
        date = parsedate_to_datetime(seconds)
    except (ValueError, OverflowError):
        return None
    at = date if date.tzinfo else date.replace(tzinfo=UTC)
    return _within(max(0.0, (at - (now or datetime.now(UTC))).total_seconds()))


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _within(wait_s: float) -> float | None:
    return min(wait_s, MAX_RETRY_AFTER_S) if math.isfinite(wait_s) and wait_s >= 0 else None
