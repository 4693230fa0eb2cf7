"""The issuer's keys, kept at hand: fetched seldom, by one task at a time, and outliving the issuer's absence."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from jwt import PyJWK
from jwt.exceptions import PyJWKError, PyJWTError

from graphs.errors import UpstreamError

FRESH_S: Final = 300.0
LAST_GOOD_S: Final = 24 * 3600.0
RETRY_S: Final = 10.0
_ASYMMETRIC: Final = ("RSA", "EC", "OKP")


class JwksCache:
    """Keys by id. `fetch` gives a JWK set and raises UpstreamError; `clock` is monotonic seconds.

    Keys are fetched again when they are older than `fresh_s` or an unknown id is asked for, but never sooner than
    `retry_s` after the last attempt: a flood of made-up ids costs the issuer one request in that time. While the issuer
    is down the last good keys hold for `last_good_s`.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Mapping[str, Any]]],
        *,
        fresh_s: float = FRESH_S,
        last_good_s: float = LAST_GOOD_S,
        retry_s: float = RETRY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._fresh_s = fresh_s
        self._last_good_s = last_good_s
        self._retry_s = retry_s
        self._clock = clock
        self._keys: Mapping[str, PyJWK] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._refreshing = asyncio.Lock()

    async def key(self, key_id: str | None) -> PyJWK | None:
        """The key with this id; a token without an id means the only key there is. None if there is none.

        Raises UpstreamError if no keys are at hand and the issuer does not give any.
        """
        if self._age() > self._fresh_s or self._find(key_id) is None:
            await self._refresh()
        if self._age() > self._last_good_s:
            raise UpstreamError("the OIDC issuer's keys are not at hand", retry_after_s=self._retry_s)
        return self._find(key_id)

    def _find(self, key_id: str | None) -> PyJWK | None:
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(key_id)

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    async def _refresh(self) -> None:
        async with self._refreshing:
            # Who waited for the lock finds the attempt of the one before.
            if self._tried_at is not None and self._clock() - self._tried_at < self._retry_s:
                return
            self._tried_at = self._clock()
            try:
                found = await self._fetch()
            except UpstreamError:
                if self._age() > self._last_good_s:
                    raise
                return
            self._keys = _usable(found)
            self._fetched_at = self._clock()


def _usable(jwks: Mapping[str, Any]) -> dict[str, PyJWK]:
    """Public signature keys by id. A set may hold more than that: encryption keys, shared secrets, new types."""
    listed = jwks.get("keys")
    found: dict[str, PyJWK] = {}
    for place, entry in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(entry, dict) or entry.get("kty") not in _ASYMMETRIC or entry.get("use", "sig") != "sig":
            continue
        try:
            found[str(entry.get("kid", f"#{place}"))] = PyJWK(entry)
        except (PyJWKError, PyJWTError):
            continue
    return found
