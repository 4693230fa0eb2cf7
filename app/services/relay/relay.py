"""Carries the events of runs in flight to the other processes, through one Redis stream a run.

A copy and never the truth: no run waits for it, what Redis does not take is dropped, and who follows a stream notices
by the events' numbers that something is missing. A stream ends with a mark in place of the run's last event, which is
in the store by then, and is gone KEPT_S after the last word.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from app.records import RunEvent
from app.services.absence import MISSES, Absence, cancelled
from graphs.errors import UpstreamError

PREFIX: Final = "pilothouse:events:"
KEPT_S: Final = 300
MAX_PIECES: Final = 5_000  # of a stream; a run that says more is followed from where it is cut by the store alone
MAX_WAITING: Final = 50_000  # events of all runs that Redis has not taken yet
LOOK_S: Final = 0.05  # between two looks at a stream: connections are shared, so none may block for news
QUIET_S: Final = 1.0
READ_PIECES: Final = 500


class RelayLost(UpstreamError):
    """The stream cannot be followed any further: Redis is away, or does not have all of it."""

    code = "relay_lost"


class EventRelay:
    """One process's end of it: tells the events of its own runs, follows those of others."""

    def __init__(self, redis: Redis, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._redis, self._monotonic = redis, monotonic
        self._absence = Absence("events reach other processes only when their runs end", monotonic)
        self._waiting: dict[str, list[RunEvent | int]] = {}
        self._count = 0
        self._telling: asyncio.Task[None] | None = None

    def tell(self, run_id: str, event: RunEvent) -> None:
        """Pass an event on, soon."""
        self._add(run_id, event)

    def end(self, run_id: str, last_number: int) -> None:
        """The run's events up to `last_number` are in the store."""
        self._add(run_id, last_number)

    async def follow(self, run_id: str, after: int) -> AsyncGenerator[RunEvent | None, None]:
        """The run's events above `after` as they come, None when a second has brought none; ends when the rest is in
        the store. Raises RelayLost."""
        key, place, last = PREFIX + run_id, "0-0", after
        heard = self._monotonic()
        while not cancelled():
            for piece_id, piece in await self._read(key, place):
                place = piece_id
                if "end" in piece:
                    if piece["end"] > last:
                        return
                    continue  # of an earlier part, up to an approval
                for number, type_, data in piece["events"]:
                    if number <= last:
                        continue
                    if number > last + 1:
                        raise RelayLost(f"events {last + 1} to {number - 1} of run {run_id} were not passed on")
                    last, heard = number, self._monotonic()
                    yield RunEvent(number, type_, data)
            if self._monotonic() - heard >= QUIET_S:
                if place == "0-0":
                    raise RelayLost(f"nothing of run {run_id} was passed on")
                heard = self._monotonic()
                yield None
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        """Wait until what was told has left."""
        while self._telling is not None:
            await asyncio.wait({self._telling})

    def _add(self, run_id: str, word: RunEvent | int) -> None:
        if self._count >= MAX_WAITING:
            return
        self._waiting.setdefault(run_id, []).append(word)
        self._count += 1
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(), name="relay events")

    async def _tell(self) -> None:
        """One journey for all that has gathered, until nothing gathers any more."""
        try:
            while self._waiting:
                waiting, self._waiting, self._count = self._waiting, {}, 0
                if self._absence.lasts:
                    continue
                try:
                    await self._send(waiting)
                except MISSES as error:
                    self._absence.note(error)
        finally:
            self._telling = None

    async def _send(self, waiting: Mapping[str, Sequence[RunEvent | int]]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for run_id, words in waiting.items():
                key = PREFIX + run_id
                for piece in _pieces(words):
                    pipeline.xadd(key, {"piece": piece}, maxlen=MAX_PIECES, approximate=True)
                pipeline.expire(key, KEPT_S)
            await pipeline.execute()

    async def _read(self, key: str, place: str) -> list[tuple[str, dict[str, Any]]]:
        try:
            pieces: Any = await self._redis.xrange(key, min=f"({place}", count=READ_PIECES)
        except MISSES as error:
            raise RelayLost("Redis does not answer") from error
        return [(_text(piece_id), json.loads(fields[b"piece"])) for piece_id, fields in pieces]


def _pieces(words: Iterable[RunEvent | int]) -> Iterator[bytes]:
    """What came together as one piece; a mark is a piece of its own."""
    for are_events, alike in groupby(words, lambda word: isinstance(word, RunEvent)):
        if are_events:
            events = [word for word in alike if isinstance(word, RunEvent)]
            yield _packed({"events": [(event.number, event.type, event.data) for event in events]})
        else:
            yield from (_packed({"end": mark}) for mark in alike)


def _packed(piece: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(piece, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a lone surrogate, which JSON can escape and UTF-8 cannot hold
        return json.dumps(piece, default=str).encode()


def _text(word: bytes | str) -> str:
    return word.decode() if isinstance(word, bytes) else word
