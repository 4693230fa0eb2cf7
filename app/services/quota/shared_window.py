"""The sliding window of `window.py` in Redis, so that all processes of an installation share one count.

One script looks at every key of a request and takes all or nothing; Redis runs it as a whole and by its own clock. When
Redis is away or slow, this process counts by itself until it is back: a limit on rate may then be exceeded by as many
times as there are processes, money never (its truth is the ledger).
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from app.services.absence import MISSES, Absence
from app.services.quota.window import SLOT_MS, SLOTS, LocalWindows, Taken, Use

PREFIX: Final = "pilothouse:window:"

# Per use two keys, a list of slots in order and a hash of what each used with their sum, and two arguments. Answers
# {refused place or 0, slots to wait, slot, of each what is left and the slots until its oldest use leaves...}.
_TAKE: Final = """
local span = tonumber(ARGV[1])
local slot_ms = tonumber(ARGV[2])
local time = redis.call('TIME')
local now = math.floor((time[1] * 1000 + math.floor(time[2] / 1000)) / slot_ms)
local refused, wait, answer = 0, 0, {}
for i = 1, #KEYS / 2 do
  local slots, used = KEYS[2 * i - 1], KEYS[2 * i]
  while true do
    local oldest = redis.call('LINDEX', slots, 0)
    if not oldest or tonumber(oldest) > now - span then break end
    redis.call('LPOP', slots)
    redis.call('HINCRBY', used, 'total', -(tonumber(redis.call('HGET', used, oldest)) or 0))
    redis.call('HDEL', used, oldest)
  end
  local limit, amount = tonumber(ARGV[1 + 2 * i]), tonumber(ARGV[2 + 2 * i])
  local total = tonumber(redis.call('HGET', used, 'total')) or 0
  local over = total + amount - limit
  if amount > 0 and over > 0 and refused == 0 then
    refused, wait = i, span
    local gone = 0
    for _, slot in ipairs(redis.call('LRANGE', slots, 0, -1)) do
      gone = gone + (tonumber(redis.call('HGET', used, slot)) or 0)
      if gone >= over then
        wait = tonumber(slot) + span - now
        break
      end
    end
  end
  answer[2 * i - 1] = math.max(0, limit - total)
end
for i = 1, #KEYS / 2 do
  local slots, used = KEYS[2 * i - 1], KEYS[2 * i]
  local amount = tonumber(ARGV[2 + 2 * i])
  if refused == 0 and amount > 0 then
    if redis.call('HEXISTS', used, now) == 0 then redis.call('RPUSH', slots, now) end
    redis.call('HINCRBY', used, now, amount)
    redis.call('HINCRBY', used, 'total', amount)
    redis.call('PEXPIRE', slots, 2 * span * slot_ms)
    redis.call('PEXPIRE', used, 2 * span * slot_ms)
    answer[2 * i - 1] = answer[2 * i - 1] - amount
  end
  local oldest = redis.call('LINDEX', slots, 0)
  answer[2 * i] = oldest and tonumber(oldest) + span - now or 0
end
return {refused, wait, now, unpack(answer)}
"""
_CORRECT: Final = """
for i = 1, #KEYS do
  local used = tonumber(redis.call('HGET', KEYS[i], ARGV[1]))
  if used then
    local more = math.max(tonumber(ARGV[2]), -used)
    redis.call('HINCRBY', KEYS[i], ARGV[1], more)
    redis.call('HINCRBY', KEYS[i], 'total', more)
  end
end
"""


class SharedWindows:
    """Counts of all processes. The client's own timeouts bound how long a slow Redis is waited for."""

    def __init__(self, redis: Redis, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._local = LocalWindows(monotonic)
        self._absence = Absence("rate limits are counted by this process alone", monotonic)
        self._take: Any = redis.register_script(_TAKE)
        self._correct: Any = redis.register_script(_CORRECT)

    async def take(self, uses: Sequence[Use]) -> Taken:
        if self._absence.lasts:
            return await self._local.take(uses)
        keys = [key for use in uses for key in _keys(use.key)]
        amounts = [number for use in uses for number in (use.limit, use.amount)]
        try:
            refused, wait, slot, *told = await self._take(keys=keys, args=[SLOTS, SLOT_MS, *amounts])
        except MISSES as error:
            self._absence.note(error)
            return await self._local.take(uses)
        # Counted here too, so that a Redis that goes away does not open a fresh window.
        await self._local.take(uses)
        slot_s = SLOT_MS / 1_000
        resets_s = tuple(slots * slot_s for slots in told[1::2])
        return Taken(refused - 1 if refused else None, wait * slot_s, tuple(told[::2]), resets_s, slot)

    async def correct(self, keys: Sequence[str], slot: int, more: int) -> None:
        await self._local.correct(keys, slot, more)
        if self._absence.lasts:
            return
        try:
            await self._correct(keys=[_keys(key)[1] for key in keys], args=[slot, more])
        except MISSES as error:
            self._absence.note(error)


def _keys(key: str) -> tuple[str, str]:
    """Both keys of a count."""
    return f"{PREFIX}{key}:slots", f"{PREFIX}{key}:used"
