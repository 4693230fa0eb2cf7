"""Turns what a model server says when it fails into our errors.

The caller learns the model's name, the status and the vendor's error code; the vendor's own words can repeat the
prompt or the key, so they go to the operator alone, as the error's cause, with the key taken out.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from graphs.errors import UpstreamError, UpstreamRateLimited, UpstreamRejected, UpstreamTimeout

MAX_RETRY_AFTER_S: Final = 3_600.0
_EXCERPT_CHARS: Final = 500
_CODE: Final = re.compile(r"[A-Za-z][\w.-]{0,63}")
_TIMEOUTS: Final = frozenset({408, 504})
_PASSING: Final = frozenset({409, 425})  # refused now, not for what the call says


class VendorAnswer(Exception):
    """The words of the vendor, for the operator."""


def failure(
    model: str, status: int, error: Any, *, secret: str = "", retry_after_s: float | None = None
) -> UpstreamError:
    """The error for an HTTP status and the vendor's error body (any JSON value, or text).

    Statuses below 400 come with a body that says it failed: the code inside decides then.
    """
    detail = error if isinstance(error, Mapping) else {}
    code = _code(detail)
    status = _status(status, detail, code)
    told = f"{model} answered with an error ({', '.join(filter(None, [str(status) if status else '', code]))})"
    cause = VendorAnswer(_excerpt(error, secret))
    raised: UpstreamError
    if status == 429:
        raised = UpstreamRateLimited(told, retry_after_s=retry_after_s)
    elif status in _TIMEOUTS:
        raised = UpstreamTimeout(told)
    elif 300 <= status < 500 and status not in _PASSING:
        raised = UpstreamRejected(told)
    else:
        raised = UpstreamError(told, retry_after_s=retry_after_s)
    raised.__cause__ = cause
    return raised


def _status(status: int, detail: Mapping[str, Any], code: str) -> int:
    """The status, or for an error inside a 200 the one its body names; 0 where it names none."""
    if status >= 300:
        return status
    for key in ("code", "status", "http_code"):
        named = detail.get(key)
        if isinstance(named, int) and 400 <= named < 600:
            return named
        if isinstance(named, str) and re.fullmatch(r"[45]\d\d", named):
            return int(named)
    if "rate_limit" in code or "resource_exhausted" in code.lower():
        return 429
    return 400 if "invalid_request" in code else 0


def _code(detail: Mapping[str, Any]) -> str:
    """The vendor's error code if it is a word and so cannot carry contents."""
    for key in ("code", "type", "status"):
        value = detail.get(key)
        if isinstance(value, str) and _CODE.fullmatch(value):
            return value
    return ""


def _excerpt(error: Any, secret: str) -> str:
    said = error.get("message", error) if isinstance(error, Mapping) else error
    text = str(said)
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
