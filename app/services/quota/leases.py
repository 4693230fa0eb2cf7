"""Places that all processes of an installation share, as leases in Redis.

A lease is a member of a sorted set for each scope, with the time at which it ends by Redis's own clock. A process
renews its leases while it lives; those of a killed one end by themselves. While Redis is away every process counts
alone.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from app.ids import new_id
from app.services.absence import MISSES, Absence, cancelled

LEASE_S: Final = 20.0
RENEW_S: Final = 5.0
PREFIX: Final = "pilothouse:places:"

_NOW: Final = "local t = redis.call('TIME'); local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
_TAKE: Final = (
    _NOW
    + """
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now)
  if redis.call('ZCARD', key) >= tonumber(ARGV[2 + i]) then return 0 end
end
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', key, 2 * ARGV[2])
end
return 1
"""
)
_RENEW: Final = (
    _NOW
    + """
for _, key in ipairs(KEYS) do
  redis.call('ZADD', key, now + ARGV[2], ARGV[1])
  redis.call('PEXPIRE', key, 2 * ARGV[2])
end
"""
)


class Leases:
    """Takes and renews leases. `keep` runs behind it for as long as the process serves."""

    def __init__(self, redis: Redis, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis
        self._absence = Absence("running calls are counted by this process alone", monotonic)
        self._held: dict[str, tuple[str, ...]] = {}
        self._releasing: set[asyncio.Task[None]] = set()
        self._take: Any = redis.register_script(_TAKE)
        self._renew: Any = redis.register_script(_RENEW)

    async def take(self, rooms: Sequence[tuple[str, int]]) -> str | None:
        """A lease in each room (key, places), or None where one is full. While Redis is away, always a lease."""
        lease, keys = new_id(), tuple(PREFIX + key for key, _ in rooms)
        if self._absence.lasts:
            return lease
        try:
            granted = await self._take(keys=keys, args=[lease, int(LEASE_S * 1_000), *(places for _, places in rooms)])
        except MISSES as error:
            self._absence.note(error)
            return lease
        if not granted:
            return None
        self._held[lease] = keys
        return lease

    def release(self, lease: str) -> None:
        """Give a lease back, soon."""
        keys = self._held.pop(lease, None)
        if keys is None:
            return
        task = asyncio.create_task(self._remove(lease, keys))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _remove(self, lease: str, keys: Sequence[str]) -> None:
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.zrem(key, lease)
                await pipeline.execute()
        except MISSES as error:
            self._absence.note(error)  # the lease ends by itself

    async def keep(self) -> None:
        """Until it is cancelled: renew what is held."""
        while not cancelled():
            await asyncio.sleep(RENEW_S)
            for lease, keys in list(self._held.items()):
                if lease not in self._held:
                    continue
                try:
                    await self._renew(keys=keys, args=[lease, int(LEASE_S * 1_000)])
                except MISSES as error:
                    self._absence.note(error)
                    break

    async def close(self) -> None:
        for lease in list(self._held):
            self.release(lease)
        while self._releasing:
            await asyncio.wait(self._releasing)
