"""Answers that are given again: an answer as it is kept, what it answers, and where exact repeats are looked up.

A key covers the tenant, the route with everything that its models are, and the whole request, so an answer is found by
nothing but the same call of the same tenant. Only whole, successful answers in plain text are kept, as the model said
them: output patterns go over them again each time they leave. A cache never fails a call: what it cannot read, and a
Redis that is away, is a miss.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

import orjson
from redis.asyncio import Redis

from app.services.absence import MISSES, Absence
from app.services.gateway.kept import ADDED_BYTES, OPEN, Keeping
from graphs.errors import UpstreamError
from graphs.types import Usage

FORM: Final = 1  # of kept answers; one more whenever what is in them changes
MAX_ANSWER_BYTES: Final = 256 << 10
MAX_BYTES: Final = 64 << 20  # of one process
WAIT_S: Final = 0.25  # a client's own tries with their pauses took 3 s on a server that was gone
PREFIX: Final = "pilothouse:answer:"


class ForgetFailed(UpstreamError):
    """The place where answers are kept could not drop them."""

    code = "forget_failed"


@dataclass(frozen=True, slots=True)
class Asked:
    """What decides an answer. `key` names all of it.

    `scope` names all but the last question, which is `question`; that is empty where only an exact repeat may be
    answered. `tenant` is the hash under which the tenant's answers lie.
    """

    tenant: str
    key: str
    scope: str
    question: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as the model gave it. `model` is the name under which the route knows it, `made_at` in Unix seconds.

    `told` are fields of the wire's answer that are given again as they came: the served model's name, the usage.
    """

    text: str
    model: str
    model_version: str
    provider: str
    usage: Usage
    made_at: float
    told: Mapping[str, Any] = field(default_factory=dict)


class AnswerCache(Protocol):
    """Where exact repeats are looked up. Nothing here raises for a store that is away."""

    async def get(self, asked: Asked) -> Answer | None: ...

    async def put(self, asked: Asked, answer: Answer, keep_s: float) -> None: ...

    async def forget(self, tenant: str) -> None:
        """Drop all of a tenant's answers. Raises ForgetFailed: who asks must hear that it did not happen."""
        ...


def tenant_hash(tenant_id: str) -> str:
    return hashlib.sha256(tenant_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def asked(tenant_id: str, route: str, call: Mapping[str, Any], question: str = "") -> Asked | None:
    """`route` names the route and everything its models are; `call` is all that the models are told but `question`. The
    order of fields, null for an absent field and 1.0 for 1 make no difference.

    None for a call that has no name: one with a lone surrogate in a text, or a number beyond 64 bits.
    """
    tenant = tenant_hash(tenant_id)
    given = {name: _even(value) for name, value in call.items() if value is not None}
    try:
        scope = orjson.dumps([FORM, tenant, route, given], option=orjson.OPT_SORT_KEYS)
        last = orjson.dumps(question)
    except TypeError:
        return None
    scope_hash = hashlib.sha256(scope)
    key = hashlib.sha256(scope_hash.digest() + last)  # of fixed length before it, so that no two calls share a key
    return Asked(tenant, key.hexdigest(), scope_hash.hexdigest(), question)


def _even(value: Any) -> Any:
    """Equal numbers written alike: 1.0 as 1."""
    if isinstance(value, Mapping):
        return {name: _even(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_even(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def packed(asked: Asked, answer: Answer) -> bytes:
    return orjson.dumps({"form": FORM, "key": asked.key} | asdict(answer))


def unpacked(data: bytes, key: str) -> Answer | None:
    """The answer if it is one of this form and of that key; anything else is no answer."""
    try:
        kept = orjson.loads(data)
        if kept.pop("form") != FORM or kept.pop("key") != key:
            return None
        answer = Answer(**kept | {"usage": Usage(**kept["usage"])})
    except (TypeError, KeyError, AttributeError, ValueError):
        return None
    texts = (answer.text, answer.model, answer.model_version, answer.provider)
    counts = (*asdict(answer.usage).values(),)
    sound = (
        all(isinstance(text, str) for text in texts)
        and all(isinstance(count, int) and count >= 0 for count in counts)
        and isinstance(answer.made_at, int | float)
        and isinstance(answer.told, dict)
    )
    return answer if sound and answer.text else None


class MemoryAnswers:
    """The answers of one process, the ones used last kept within a bound of bytes."""

    def __init__(self, max_bytes: int = MAX_BYTES, *, now: Callable[[], float] = time.time) -> None:
        self._max_bytes, self._now = max_bytes, now
        self._kept: OrderedDict[tuple[str, str], tuple[bytes, float]] = OrderedDict()
        self.size_bytes = 0

    async def get(self, asked: Asked) -> Answer | None:
        place = (asked.tenant, asked.key)
        found = self._kept.get(place)
        if found is None:
            return None
        data, dies_at = found
        if dies_at <= self._now():
            self._drop(place)
            return None
        self._kept.move_to_end(place)
        return unpacked(data, asked.key)

    async def put(self, asked: Asked, answer: Answer, keep_s: float) -> None:
        data, place = packed(asked, answer), (asked.tenant, asked.key)
        if len(data) > min(MAX_ANSWER_BYTES, self._max_bytes):
            return
        self._drop(place)
        self._kept[place] = (data, self._now() + keep_s)
        self.size_bytes += len(data)
        while self.size_bytes > self._max_bytes:
            self._drop(next(iter(self._kept)))

    async def forget(self, tenant: str) -> None:
        for place in [place for place in self._kept if place[0] == tenant]:
            self._drop(place)

    def _drop(self, place: tuple[str, str]) -> None:
        gone = self._kept.pop(place, None)
        if gone is not None:
            self.size_bytes -= len(gone[0])


class RedisAnswers:
    """The answers of all processes. A Redis that is slow is waited for as long as a look is worth, whatever its client
    would do."""

    def __init__(
        self, redis: Redis, *, keeping: Keeping = OPEN, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._redis: Any = redis
        self._keeping = keeping
        self._absence = Absence("answers are not looked up", monotonic)

    async def get(self, asked: Asked) -> Answer | None:
        if self._absence.lasts:
            return None
        try:
            async with asyncio.timeout(WAIT_S):
                data = await self._redis.get(_place(asked))
        except MISSES as error:
            self._absence.note(error)
            return None
        if isinstance(data, str):  # a client that decodes
            data = data.encode()
        if data is None or len(data) > MAX_ANSWER_BYTES + ADDED_BYTES:
            return None
        opened = self._keeping.opened(data, asked.tenant, asked.key, "exact")
        return None if opened is None else unpacked(opened, asked.key)

    async def put(self, asked: Asked, answer: Answer, keep_s: float) -> None:
        data = packed(asked, answer)
        if len(data) > MAX_ANSWER_BYTES or self._absence.lasts:
            return
        try:
            async with asyncio.timeout(WAIT_S):
                sealed = self._keeping.shut(data, asked.tenant, asked.key, "exact")
                await self._redis.set(_place(asked), sealed, px=max(1, round(keep_s * 1_000)))
        except MISSES as error:
            self._absence.note(error)

    async def forget(self, tenant: str) -> None:
        try:
            async for key in self._redis.scan_iter(match=f"{PREFIX}{tenant}:*", count=1_000):
                await self._redis.unlink(key)
        except MISSES as error:
            raise ForgetFailed("kept answers could not be dropped; they go when their time is over") from error


def _place(asked: Asked) -> str:
    return f"{PREFIX}{asked.tenant}:{asked.key}"
