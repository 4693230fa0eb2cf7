"""The audit trail: who did what, written in the transaction that does it, each entry chained to the one before.

An entry holds opaque ids and words of ours, never what a user wrote. A person is a random id; who that is says a table
of its own, so that a person can be forgotten and the chain still holds. The digest of an entry covers the digest before
it: whoever changes, drops or slips in an entry has to rewrite all that follow, and the heads that logs have told. The
database refuses to change or remove entries too, which stops mistakes, not its administrator.
"""

import json
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Row, Table, Text, UniqueConstraint, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ids import new_id
from app.records import Actor
from app.services.database import Database, from_us, to_us

log = logging.getLogger("pilothouse.audit")

Action = Literal[
    "key.created",
    "key.regrouped",
    "key.revoked",
    "owner_key.imported",
    "approval.asked",
    "approval.approved",
    "approval.denied",
    "approval.expired",
    "approval.approved_once",
    "approval.first_voided",
    "approval.voided",
    "escalation.opened",
    "escalation.taken",
    "escalation.closed",
    "conversation.erased",
    "person.erased",
    "retention.swept",
    "uploads.removed",
    "switch.off",
    "switch.on",
    "tool.accepted",
    "tool.called",
    "web.fetched",
]
Fact = str | int | bool | None
GENESIS: Final = "0" * 64
_TURN: Final = 0x70696C6F74  # PostgreSQL's advisory lock of those who append; SQLite has one writer anyway

metadata = MetaData(naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_N_name)s"})
entries = Table(
    "audit",
    metadata,
    Column("sequence", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("at_us", BigInteger, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("person_id", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Index(None, "tenant_id", "sequence"),
)
people = Table(
    "audit_people",
    metadata,
    Column("person_id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    UniqueConstraint("tenant_id", "user_id", name="uq_audit_people_tenant_id_user_id"),
)


OPERATOR: Final = Actor("default", "operator")  # whoever has the shell of the machine
PLATFORM: Final = Actor("", "")  # nobody: what time or a failure does


@dataclass(frozen=True, slots=True)
class Entry:
    """`user_id` is None for somebody who was forgotten, and for the platform itself."""

    sequence: int
    at: datetime
    tenant_id: str
    person_id: str
    user_id: str | None
    action: str
    subject: str
    facts: Mapping[str, Fact]
    digest: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """`broken_at` is the first entry that does not follow from those before it, None where all do."""

    count: int
    head: str
    broken_at: int | None = None
    why: str = ""


@dataclass
class Journal:
    """One transaction of acts and their entries."""

    connection: AsyncConnection
    _database: Database
    _written: list[tuple[int, str, str, str]] = field(default_factory=list)

    async def note(
        self, action: Action, by: Actor, tenant_id: str, subject: str, facts: Mapping[str, Fact] | None = None
    ) -> None:
        """Append what is being done in this transaction to `tenant_id`, or to no tenant's matter where it is empty."""
        if self.connection.dialect.name == "postgresql":
            await self.connection.execute(text("SELECT pg_advisory_xact_lock(:turn)"), {"turn": _TURN})
        last = select(entries.c.sequence, entries.c.digest).order_by(entries.c.sequence.desc()).limit(1)
        before = (await self.connection.execute(last)).first()
        sequence, previous = (1, GENESIS) if before is None else (before.sequence + 1, before.digest)
        row = {
            "sequence": sequence,
            "at_us": to_us(self._database.clock()),
            "tenant_id": tenant_id,
            "person_id": await self._person(by),
            "action": action,
            "subject": subject,
            "facts": _canonical(facts or {}),
        }
        digest = _digest(previous, row)
        await self.connection.execute(entries.insert().values(**row, digest=digest))
        self._written.append((sequence, action, subject, digest))

    async def _person(self, actor: Actor) -> str:
        if actor == PLATFORM:
            return ""
        mine = {"tenant_id": actor.tenant_id, "user_id": actor.user_id}
        known = self._database.insert(people).values(person_id=new_id(), **mine)
        await self.connection.execute(known.on_conflict_do_nothing(index_elements=["tenant_id", "user_id"]))
        found = select(people.c.person_id).filter_by(**mine)
        return str((await self.connection.execute(found)).scalar_one())


@asynccontextmanager
async def audited(database: Database) -> AsyncIterator[Journal]:
    """A transaction of `database` with a trail; what it wrote is told to the log once it is committed."""
    async with database.write() as connection:
        journal = Journal(connection, database)
        yield journal
    for sequence, action, subject, digest in journal._written:
        log.info(action, extra={"sequence": sequence, "subject": subject, "digest": digest})


class Trail:
    """Reads what was written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, tenant_id: str | None, limit: int, before: int | None = None) -> list[Entry]:
        """Newest first, `before` a sequence number; of one tenant, or of all where it is None."""
        joined = entries.outerjoin(people, entries.c.person_id == people.c.person_id)
        query = select(entries, people.c.user_id).select_from(joined).order_by(entries.c.sequence.desc()).limit(limit)
        if tenant_id is not None:
            query = query.where(entries.c.tenant_id == tenant_id)
        if before is not None:
            query = query.where(entries.c.sequence < before)
        async with self._database.read() as connection:
            return [_entry(row) for row in await connection.execute(query)]

    async def verify(self, anchors: Mapping[int, str] | None = None) -> Verdict:
        """Compute the chain anew, and compare it with digests that were noted elsewhere, by sequence number.

        Without an anchor, entries that were cut off at the end are not missed.
        """
        expected = dict(anchors or {})
        count, head = 0, GENESIS
        ordered = select(entries).order_by(entries.c.sequence)
        async with self._database.read() as connection, connection.stream(ordered) as rows:
            async for row in rows:
                digest = _digest(head, {name: getattr(row, name) for name in _COVERED})
                why = _broken(row, count + 1, digest, expected.pop(row.sequence, digest))
                if why:
                    return Verdict(count, head, count + 1, why)
                count, head = row.sequence, digest
        if expected:
            return Verdict(count, head, count + 1, f"the trail ends before the anchor {min(expected)}")
        return Verdict(count, head)


_COVERED: Final[Sequence[str]] = ("sequence", "at_us", "tenant_id", "person_id", "action", "subject", "facts")


def _broken(row: Row[*tuple[object, ...]], expected_sequence: int, digest: str, anchor: str) -> str:
    if row.sequence != expected_sequence:
        return "it is missing"
    if digest != row.digest:
        return "it, or one before it, was changed"
    return "" if digest == anchor else "the chain was written anew: the anchor differs"


def _digest(previous: str, row: Mapping[str, object]) -> str:
    covered = _canonical({name: row[name] for name in _COVERED})
    return sha256(f"{previous}\n{covered}".encode()).hexdigest()


def _canonical(value: Mapping[str, object]) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _entry(row: Row[*tuple[object, ...]]) -> Entry:
    values = dict(row._mapping)
    return Entry(at=from_us(values.pop("at_us")), facts=json.loads(values.pop("facts")), **values)
