"""How much may go on at once: places for running calls, and a queue that is fair across tenants when all are taken.

A call takes one place in each of its scopes (its tenant's, user's, feature's, key's, and the process's own). Who finds
none waits; places that come free go to the tenants in turn, so one tenant's ten thousand do not keep the others out.
"""

import asyncio
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from app.services.quota.leases import Leases
from app.services.quota.refusals import QueueFull

POLL_S: Final = 0.05  # how often a call asks again for a place that all processes share


@dataclass(frozen=True, slots=True)
class Room:
    """So many places has a scope."""

    key: str
    places: int


@dataclass(frozen=True, slots=True, eq=False)
class _Waiter:
    rooms: tuple[Room, ...]
    granted: "asyncio.Future[None]"


class Places:
    """The places of one process; with `leases`, those of listed scopes are shared with the other processes."""

    def __init__(
        self,
        *,
        at_once: int,
        queue_length: int,
        queue_wait_s: float,
        leases: Leases | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._at_once, self._queue_length, self._queue_wait_s = at_once, queue_length, queue_wait_s
        self._leases, self._monotonic = leases, monotonic
        self._taken: Counter[str] = Counter()
        self._tenants: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self.running = self.waiting = 0

    def by_tenant(self) -> dict[str, tuple[int, int]]:
        """Running and waiting calls of each tenant that has any."""
        names = self._tenants.keys() | self._queues.keys()
        return {name: (self._tenants[name], len(self._queues.get(name, ()))) for name in sorted(names)}

    async def enter(self, tenant_id: str, rooms: Sequence[Room]) -> "Place":
        """Take a place in each room, waiting for it if need be. Raises QueueFull."""
        rooms = tuple(rooms)
        if not self._queues and self._fits(rooms):
            self._take(tenant_id, rooms)
        else:
            await self._wait(tenant_id, rooms, self._monotonic() + self._queue_wait_s)
        if self._leases is None or not rooms:
            return Place(self, tenant_id, rooms)
        return await self._share(tenant_id, rooms, self._leases)

    async def _share(self, tenant_id: str, rooms: tuple[Room, ...], leases: Leases) -> "Place":
        """Take the same places among all processes; while there are none, ours go back to whoever waits here."""
        until = self._monotonic() + self._queue_wait_s
        while True:
            try:
                lease = await leases.take([(room.key, room.places) for room in rooms])
            except BaseException:
                self.leave(tenant_id, rooms)
                raise
            if lease is not None:
                return Place(self, tenant_id, rooms, partial(leases.release, lease))
            self.leave(tenant_id, rooms)
            if self._monotonic() >= until:
                raise _full(self._queue_wait_s)
            await asyncio.sleep(POLL_S)
            await self._wait(tenant_id, rooms, until)

    def leave(self, tenant_id: str, rooms: Sequence[Room]) -> None:
        self.running -= 1
        _lower(self._tenants, tenant_id)
        for room in rooms:
            _lower(self._taken, room.key)
        if self._queues:
            self._wake()

    async def _wait(self, tenant_id: str, rooms: tuple[Room, ...], until: float) -> None:
        if self.waiting >= self._queue_length:
            raise _full(1.0)
        waiter = _Waiter(rooms, asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant_id, deque()).append(waiter)
        self.waiting += 1
        self._wake()
        try:
            async with asyncio.timeout(max(0.0, until - self._monotonic())):
                await waiter.granted
        except BaseException as error:
            if waiter.granted.done() and not waiter.granted.cancelled():
                self.leave(tenant_id, rooms)  # granted in the moment in which it gave up
            else:
                self._forget(tenant_id, waiter)
            if isinstance(error, TimeoutError):
                raise _full(self._queue_wait_s) from error
            raise

    def _forget(self, tenant_id: str, waiter: _Waiter) -> None:
        queue = self._queues[tenant_id]
        queue.remove(waiter)
        self.waiting -= 1
        if not queue:
            del self._queues[tenant_id]

    def _wake(self) -> None:
        """Give free places away, one to each tenant in turn, until nobody who waits fits."""
        passed_over = 0
        while self._queues and passed_over < len(self._queues) and self.running < self._at_once:
            tenant_id, queue = next(iter(self._queues.items()))
            self._queues.move_to_end(tenant_id)
            # One that is cancelled leaves the queue a moment later, by itself.
            found = next((one for one in queue if not one.granted.done() and self._fits(one.rooms)), None)
            if found is None:
                passed_over += 1
                continue
            passed_over = 0
            self._take(tenant_id, found.rooms)
            self._forget(tenant_id, found)
            found.granted.set_result(None)

    def _fits(self, rooms: Sequence[Room]) -> bool:
        if self.running >= self._at_once:
            return False
        return all(self._taken[room.key] < room.places for room in rooms)

    def _take(self, tenant_id: str, rooms: Sequence[Room]) -> None:
        self.running += 1
        self._tenants[tenant_id] += 1
        for room in rooms:
            self._taken[room.key] += 1


class Place:
    """A place that is taken. Leaving twice changes nothing."""

    __slots__ = ("_left", "_places", "_release", "_rooms", "_tenant_id")

    def __init__(
        self, places: Places, tenant_id: str, rooms: Sequence[Room], release: Callable[[], None] | None = None
    ) -> None:
        self._places, self._tenant_id, self._rooms, self._release = places, tenant_id, rooms, release
        self._left = False

    def leave(self) -> None:
        if self._left:
            return
        self._left = True
        if self._release is not None:
            self._release()
        self._places.leave(self._tenant_id, self._rooms)


def _lower(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _full(retry_after_s: float) -> QueueFull:
    return QueueFull("too many calls are running; nothing came free in time", retry_after_s=max(1.0, retry_after_s))
