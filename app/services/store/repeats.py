"""What a caller's idempotency key stands for: one request of a user, kept for a day, with what it was answered.

Who takes a key on holds it for a moment at a time, so that one that died with its process can be taken over. Whoever
takes it over does the work again under the same `ref`, so that work has to bear that, as a job's does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

from sqlalchemy import ColumnElement, Row, and_, delete, func, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ids import new_id
from app.services.store.database import Database
from app.services.store.tables import repeats
from graphs.errors import Invalid

KEPT: Final = timedelta(hours=24)
HELD: Final = timedelta(seconds=30)
KEPT_OF_A_USER: Final = 50_000  # the newest; a row of a run has about 400 bytes


class KeyReused(Invalid):
    """The idempotency key stands for another request."""

    code = "idempotency_key_reused"


@dataclass(frozen=True, slots=True)
class Claim:
    """How a key stands. `mine` says that the caller has to do what was asked, as `holder`; `done` that it is done.

    `ref` names what is brought about, the same for all who claim the key; `answer` is small JSON.
    """

    tenant_id: str
    user_id: str
    key_sha256: str
    ref: str
    holder: str
    mine: bool = False
    done: bool = False
    answer: Mapping[str, Any] | None = None

    @property
    def row(self) -> ColumnElement[bool]:
        return and_(
            repeats.c.tenant_id == self.tenant_id,
            repeats.c.user_id == self.user_id,
            repeats.c.key_sha256 == self.key_sha256,
        )

    @property
    def held(self) -> ColumnElement[bool]:
        return and_(self.row, repeats.c.holder == self.holder, repeats.c.done_at.is_(None))


class Repeats:
    """The keys of all tenants, each user's apart."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def claim(self, tenant_id: str, user_id: str, key: str, asked: bytes) -> Claim:
        """Take the key on, or learn who has. Raises KeyReused."""
        name = sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        asked_sha256 = sha256(name.encode() + sha256(asked).digest()).hexdigest()
        claim, now = Claim(tenant_id, user_id, name, new_id(), new_id(), mine=True), self._db.clock()
        fresh = {
            "asked_sha256": asked_sha256,
            "ref": claim.ref,
            "holder": claim.holder,
            "held_until": now + HELD,
            "answer": None,
            "created_at": now,
            "done_at": None,
        }
        own = {"tenant_id": tenant_id, "user_id": user_id, "key_sha256": name}
        over = repeats.c.created_at <= now - KEPT
        taken = self._db.insert(repeats).values(own | fresh)
        taken = taken.on_conflict_do_update(index_elements=list(own), set_=fresh, where=over)
        async with self._db.write() as connection:
            if (await connection.execute(taken.returning(repeats.c.ref))).first() is not None:
                return claim
            row = (await connection.execute(select(repeats).where(claim.row).with_for_update())).one()
            if row.asked_sha256 != asked_sha256:
                raise KeyReused("this Idempotency-Key stands for another request", field="Idempotency-Key")
            return await self._standing(connection, claim, row, now)

    async def _standing(self, connection: AsyncConnection, claim: Claim, row: Row[Any], now: datetime) -> Claim:
        found = replace(claim, ref=row.ref, mine=False)
        if row.done_at is not None:
            return replace(found, done=True, answer=self._db.seals.open(repeats, row._asdict())["answer"])
        if row.held_until > now:
            return found
        await connection.execute(update(repeats).where(claim.row).values(holder=claim.holder, held_until=now + HELD))
        return replace(found, mine=True)

    async def hold(self, claim: Claim) -> None:
        """Hold it for another moment."""
        async with self._db.write() as connection:
            longer = update(repeats).where(claim.held).values(held_until=self._db.clock() + HELD)
            await connection.execute(longer)

    async def finish(self, claim: Claim, answer: Mapping[str, Any] | None = None) -> None:
        """It is done; whoever comes with the key is given this. Nothing, where somebody else has taken it over."""
        last = {"done_at": self._db.clock(), "answer": answer}
        of = {"tenant_id": claim.tenant_id, "user_id": claim.user_id, "key_sha256": claim.key_sha256}
        async with self._db.write() as connection:
            sealed = self._db.seals.seal(repeats, last, **of)
            await connection.execute(update(repeats).where(claim.held).values(sealed))

    async def release(self, claim: Claim) -> None:
        """Nothing was brought about: the key stands for nothing any more."""
        async with self._db.write() as connection:
            await connection.execute(delete(repeats).where(claim.held))

    async def sweep(self) -> int:
        """Forget those that were kept long enough, and of each user all but the newest; how many that were."""
        newest = func.row_number().over(
            partition_by=(repeats.c.tenant_id, repeats.c.user_id), order_by=repeats.c.created_at.desc()
        )
        own = (repeats.c.tenant_id, repeats.c.user_id, repeats.c.key_sha256)
        ranked = select(*own, newest.label("place")).subquery()
        excess = select(*(ranked.c[column.name] for column in own)).where(ranked.c.place > KEPT_OF_A_USER)
        async with self._db.write() as connection:
            old = delete(repeats).where(repeats.c.created_at <= self._db.clock() - KEPT)
            gone = (await connection.execute(old)).rowcount
            return gone + (await connection.execute(delete(repeats).where(tuple_(*own).in_(excess)))).rowcount
