"""Tells the other processes which models rest here, and takes their word as advice, through Redis.

Advice only: a breaker decides by itself, no call ever waits for Redis, and while Redis is away or slow each process
knows what it has seen. Each tells its own verdicts and never what it was told, so that none goes round for ever.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self

from redis.asyncio import Redis

from app.ids import new_id
from app.services.absence import MISSES, cancelled
from app.services.breaker import Breaker

log = logging.getLogger("pilothouse.gateway")

EVERY_S: Final = 1.0
WAIT_S: Final = 0.5  # a Redis that takes longer counts as away
KEY: Final = "pilothouse:resting"

# One set for all: members `kind:process:model`, scored by the end of the rest in milliseconds of Redis's own clock,
# so that no two machines have to agree on the time. Gives what is left of each.
_EXCHANGE: Final = """
local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)
for i = 1, #ARGV, 2 do
  local rest = tonumber(ARGV[i + 1])
  if rest > 0 then redis.call('ZADD', KEYS[1], now + rest, ARGV[i]) else redis.call('ZREM', KEYS[1], ARGV[i]) end
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local found = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 2, #found, 2 do found[i] = string.format('%d', found[i] - now) end
return found
"""


class SharedHealth:
    """The exchange of one process, by `async with` or `start` and `close`. `breakers` by the names of their models."""

    def __init__(
        self,
        redis: Redis,
        breakers: Mapping[str, Breaker],
        *,
        monotonic: Callable[[], float] = time.monotonic,
        every_s: float = EVERY_S,
        wait_s: float = WAIT_S,
    ) -> None:
        self._breakers, self._monotonic = dict(breakers), monotonic
        self._every_s, self._wait_s = every_s, wait_s
        self._process = new_id()
        self._script: Any = redis.register_script(_EXCHANGE)
        self._told: set[str] = set()
        self._task: asyncio.Task[None] | None = None
        self.away = False
        """Whether Redis did not answer when it was last asked."""

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="share health")

    async def close(self) -> None:
        """Stop. What was told ends by itself."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))
            self._task = None

    async def exchange(self) -> None:
        """Tell and hear once; the models rest on as they did where Redis does not answer in time."""
        now = self._monotonic()
        own = self._own(now)
        # A rest that is over is taken back once, for one that a good probe has ended early.
        sent = own | dict.fromkeys(self._told - own.keys(), 0)
        try:
            async with asyncio.timeout(self._wait_s):
                found = await self._script(keys=[KEY], args=[word for pair in sent.items() for word in pair])
        except MISSES as error:
            self._miss(error)
            return
        if self.away:
            self.away = False
            log.info("the processes share again which models rest")
        self._told = set(own)
        self._hear(found)

    async def _keep(self) -> None:
        while not cancelled():
            await self.exchange()
            await asyncio.sleep(self._every_s)

    def _own(self, now: float) -> dict[str, int]:
        """What rests by this process's own verdict, in milliseconds by member."""
        own: dict[str, int] = {}
        for name, breaker in self._breakers.items():
            for kind, rest_s in zip(("open", "cool"), breaker.own_rest_s(now), strict=True):
                if rest_s > 0:
                    own[f"{kind}:{self._process}:{name}"] = max(1, round(rest_s * 1_000))
        return own

    def _hear(self, found: list[bytes | str]) -> None:
        rests: dict[str, dict[str, float]] = {}
        for member, left_ms in zip(found[::2], found[1::2], strict=True):
            kind, process, name = _text(member).split(":", 2)
            if process != self._process:
                rest = rests.setdefault(name, {"open": 0.0, "cool": 0.0})
                rest[kind] = max(rest[kind], int(left_ms) / 1_000)
        now = self._monotonic()
        for name, breaker in self._breakers.items():
            rest = rests.get(name, {})
            breaker.advise(now, open_s=rest.get("open", 0.0), cool_s=rest.get("cool", 0.0))

    def _miss(self, error: Exception) -> None:
        if not self.away:
            log.warning("each process knows alone which models rest: Redis does not answer", exc_info=error)
        self.away = True


def _text(word: bytes | str) -> str:
    return word.decode() if isinstance(word, bytes) else word
