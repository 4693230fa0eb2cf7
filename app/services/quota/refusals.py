"""Why a caller was not let in. Apart from the desk, so that the doors can name them without loading it."""

from collections.abc import Mapping
from typing import Final, Self

from graphs.errors import Forbidden, QuotaExhausted

NO_HEADERS: Final[Mapping[str, str]] = {}


class RateLimited(QuotaExhausted):
    """More requests or tokens than a minute allows. `headers` tell how the limits stand."""

    code = "rate_limited"

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.headers = headers


class QueueFull(QuotaExhausted):
    """Too many are running and too many wait, or nothing came free in time."""

    code = "too_many_running"


class SwitchedOff(Forbidden):
    """An operator has switched the tenant, key or model off."""

    code = "switched_off"

    @classmethod
    def by(cls, kind: str, name: str, reason: str) -> Self:
        """As the switch tells it. A model is named: a route has several."""
        what, field = (name, "model") if kind == "model" else (f"this {kind}", None)
        return cls(f"{what} is switched off: {reason}".removesuffix(": "), field=field)
