"""Turns between processes of any machine, by an object of a bucket for each: its holder renews it with a token.

No clock is compared: whoever waits takes the turn of a holder whose object has stayed the same for LEASE_S as the
waiting one counts them. A holder that could not renew in time is broken off, as its turn may be another's by then.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from app.buckets import Bucket, bucket_errors
from app.ids import new_id
from app.services.retrieval.commit import IndexFailed
from app.services.retrieval.locks import Taken
from graphs.errors import PilothouseError

if TYPE_CHECKING:
    from obstore.store import S3Store

LEASE_S: Final = 15.0
POLL_S: Final = 0.2
_FREE: Final = b"{}"


@dataclass(slots=True)
class _Held:
    """`count` makes each renewal another object, which those who wait notice."""

    path: str
    e_tag: str | None
    token: str
    renewed_at: float
    count: int = 0

    @property
    def body(self) -> bytes:
        return json.dumps({"holder": self.token, "count": self.count}).encode()


class BucketTurns:
    """Objects stay when nobody holds them; they are some bytes each, three of them a collection."""

    def __init__(self, bucket: Bucket, *, lease_s: float = LEASE_S) -> None:
        self._bucket, self._lease_s = bucket, lease_s
        self._store: S3Store = bucket.opened()

    @asynccontextmanager
    async def hold(self, name: str, *, wait: bool) -> AsyncIterator[None]:
        """Without `wait` raises Taken. Raises BucketFailed, and IndexFailed where the turn was lost on the way."""
        held = await self._taken(f".locks/{name}", wait=wait)
        try:
            async with asyncio.timeout(None) as bound:
                done = asyncio.Event()
                renewing = asyncio.create_task(self._renew(held, bound, done), name=f"hold {name}")
                try:
                    yield
                finally:
                    # Not cancelled: a request that is on its way would still change the object, and its tag.
                    done.set()
                    await asyncio.wait({renewing})
        except TimeoutError as error:
            if not bound.expired():
                raise
            raise IndexFailed(f"the turn {name} was lost: the bucket was away, or this process stood still") from error
        finally:
            # One that cannot be given back is taken after LEASE_S; a lost one is not ours to give.
            with suppress(PilothouseError):
                await self._put(held.path, _FREE, {"e_tag": held.e_tag})

    async def _taken(self, path: str, *, wait: bool) -> _Held:
        loop, seen, since = asyncio.get_running_loop(), None, 0.0
        while True:
            body, e_tag = await self._look(path)
            now = loop.time()
            if e_tag != seen:
                seen, since = e_tag, now
            if body in (None, _FREE) or now - since >= self._lease_s:
                held = _Held(path, None, new_id(), now)
                held.e_tag = await self._put(path, held.body, "create" if e_tag is None else {"e_tag": e_tag})
                if held.e_tag is not None:
                    return held
            if not wait:
                raise Taken(path)
            await asyncio.sleep(POLL_S * random.uniform(0.5, 1.5))  # noqa: S311 (jitter, no secret)

    async def _renew(self, held: _Held, bound: asyncio.Timeout, done: asyncio.Event) -> None:
        """Until `done`, or until somebody else may have the turn: then `bound` ends the holder's work."""
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(done.wait(), self._lease_s / 4)
                return
            held.count += 1
            begun = loop.time()
            with suppress(PilothouseError):
                e_tag = await self._put(held.path, held.body, {"e_tag": held.e_tag})
                if e_tag is None:
                    break
                held.e_tag, held.renewed_at = e_tag, begun
            if loop.time() - held.renewed_at > self._lease_s / 2:
                break
        bound.reschedule(loop.time())

    async def _look(self, path: str) -> tuple[bytes | None, str | None]:
        """What the object holds and its tag; None for none."""
        with bucket_errors(str(self._bucket)):
            try:
                found = await self._store.get_async(path)
                return bytes(await found.bytes_async()), found.meta["e_tag"]
            except FileNotFoundError:
                return None, None

    async def _put(self, path: str, body: bytes, mode: Any) -> str | None:
        """The new tag, or None where somebody else was first. Raises BucketFailed."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with bucket_errors(str(self._bucket)):
            try:
                return (await self._store.put_async(path, body, mode=mode))["e_tag"]
            except (AlreadyExistsError, PreconditionError):
                pass
        # The client tries again by itself where an answer was lost, and then meets what it has written.
        found, e_tag = await self._look(path)
        return e_tag if found == body and body != _FREE else None
