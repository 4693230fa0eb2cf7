"""Approvals: a tool call that people must decide on. Exactly one decision wins, in the database."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, or_, select, update

from app.ids import new_id
from app.records import Actor, ApprovalState
from app.services.audit import PLATFORM, Action, Fact, Journal, audited
from app.services.store.database import Database
from app.services.store.escalations import raise_for
from app.services.store.notices import NoticeKind, note
from app.services.store.page import build, columns, page
from app.services.store.records import WAITING, ApprovalRecord, Page
from app.services.store.tables import approvals, runs
from graphs.errors import Conflict, Missing
from graphs.toolhash import call_hash, canonical
from graphs.types import Decision, Risk, ToolProposal

_DECIDED: Final[Mapping[ApprovalState, tuple[Action, NoticeKind]]] = {
    "approved_once": ("approval.approved_once", "approval.approved_once"),
    "approved": ("approval.approved", "approval.approved"),
    "denied": ("approval.denied", "approval.denied"),
}
_COLUMNS = columns(approvals, ApprovalRecord)
_WAITS = approvals.c.state.in_(WAITING)


class Approvals:
    """What waits for people, and what they said."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._record = database.seals.reader(approvals, ApprovalRecord)

    async def create(
        self,
        run_id: str,
        interrupt_id: str,
        tenant_id: str,
        user_id: str,
        tool: str,
        arguments: Mapping[str, Any],
        risk: Risk,
        expires_at: datetime,
        *,
        call_id: str = "",
        definition: str = "",
        needs: int = 1,
        reasons: Sequence[str] = (),
        origins: Sequence[Mapping[str, str]] = (),
    ) -> ApprovalRecord:
        """Ask once for each interrupt of a run: the same pair again gives the first record. Raises Missing."""
        call = ToolProposal(call_id, tool, arguments)
        row = {
            "approval_id": new_id(),
            "run_id": run_id,
            "interrupt_id": interrupt_id,
            "tenant_id": tenant_id,
            "user_id": user_id,
            "tool": tool,
            "arguments": arguments,
            "risk": risk,
            "state": "pending",
            "created_at": self._db.clock(),
            "expires_at": expires_at,
            "call_id": call_id,
            "definition": definition,
            "binding": call_hash(call, definition, run_id=run_id, tenant_id=tenant_id, user_id=user_id),
            "needs": needs,
            "reasons": reasons,
            "origins": list(origins),
        }
        asked = select(*_COLUMNS).where(
            approvals.c.run_id == run_id, approvals.c.interrupt_id == interrupt_id, approvals.c.tenant_id == tenant_id
        )
        async with audited(self._db) as journal:
            run = select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.tenant_id == tenant_id)
            if (await journal.connection.execute(run)).first() is None:
                raise Missing("no such run")
            once = self._db.insert(approvals).on_conflict_do_nothing(index_elements=["run_id", "interrupt_id"])
            new = (await journal.connection.execute(once.values(self._db.seals.seal(approvals, row)))).rowcount
            record = build(self._record, (await journal.connection.execute(asked)).one())
            if new:
                facts: Mapping[str, Fact] = {"run": run_id, "tool": tool, "risk": risk, "needs": needs}
                await journal.note("approval.asked", Actor(tenant_id, user_id), tenant_id, record.approval_id, facts)
                await self._tell(journal, "approval.waiting", record)
            return record

    async def get(self, approval_id: str, tenant_id: str) -> ApprovalRecord:
        """Raises Missing."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(_the(approval_id, tenant_id)))).first()
        if row is None:
            raise Missing("no such approval")
        return build(self._record, row)

    async def of_run(self, run_id: str, tenant_id: str) -> list[ApprovalRecord]:
        """All approvals that a run asked for, oldest first; empty for another tenant's run."""
        query = select(*_COLUMNS).where(approvals.c.run_id == run_id, approvals.c.tenant_id == tenant_id)
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(approvals.c.created_at, approvals.c.approval_id))
            return [build(self._record, row) for row in rows]

    async def decide(
        self,
        approval_id: str,
        tenant_id: str,
        by: Actor,
        decision: Decision,
        arguments: Mapping[str, Any] | None,
        comment: str,
        now: datetime,
        *,
        needs: int = 1,
        seen: str | None = None,
    ) -> ApprovalRecord:
        """Decide it, if it waits and is not past its time; of many callers at once one wins.

        `arguments` replaces what stands. Where `needs`, or the call itself, asks for two persons, the first approval
        leaves it waiting for somebody else's of the same arguments; one of others makes the first void. One denial ends
        it. `seen` is the binding of what the caller was shown.

        Raises Conflict for a decided or expired one, for one that stands otherwise than was seen, and for a second
        approval of the same person; Missing.
        """
        at = await self.get(approval_id, tenant_id)
        if seen is not None and seen != at.binding and at.waits:
            raise Conflict("the call has been changed since you were shown it: look at it again")
        if decision == "deny":
            values: dict[str, Any] = {"state": "denied", "decided_arguments": arguments}
        else:
            values = self._approved(at, by, arguments, max(at.needs, needs), now)
        if values["state"] != "approved_once":
            values |= {"decided_by": by.user_id, "decided_at": now}
        change = (
            update(approvals)
            .where(_the(approval_id, tenant_id), _WAITS, approvals.c.expires_at > now)
            # What a person approves is what they were shown: nobody may have changed it, or been first, in between.
            .where(approvals.c.state == at.state, approvals.c.binding == at.binding)
            .where(approvals.c.first_by.is_not_distinct_from(at.first_by))
            .values(self._sealed(at, values | {"comment": comment}))
            .returning(*_COLUMNS)
        )
        async with audited(self._db) as journal:
            row = (await journal.connection.execute(change)).first()
            if row is not None:
                record = build(self._record, row)
                await self._write_down(journal, at, record, by, edited=arguments is not None)
        if row is None:
            raise Conflict(_standing(await self.get(approval_id, tenant_id), now))
        return record

    def _approved(
        self, at: ApprovalRecord, by: Actor, arguments: Mapping[str, Any] | None, needs: int, now: datetime
    ) -> dict[str, Any]:
        """What an approval changes. Raises Conflict for a second one of the same person."""
        told = at.standing if arguments is None else arguments
        changed = canonical(told) != canonical(at.standing)
        kept = at.first_arguments if arguments is None else arguments
        call = ToolProposal(at.call_id, at.tool, told)
        bound = call_hash(call, at.definition, run_id=at.run_id, tenant_id=at.tenant_id, user_id=at.user_id)
        if needs == 1 or (at.state == "approved_once" and not changed and at.first_by != by.user_id):
            return {"state": "approved", "decided_arguments": kept, "binding": bound}
        if at.first_by == by.user_id and not changed:
            raise Conflict("you have approved this call already; it needs a second person")
        first = {"first_by": by.user_id, "first_at": now, "first_arguments": kept}
        return {"state": "approved_once", "needs": needs, "binding": bound, **first}

    async def _write_down(
        self, journal: Journal, before: ApprovalRecord, after: ApprovalRecord, by: Actor, *, edited: bool
    ) -> None:
        facts: Mapping[str, Fact] = {"run": after.run_id, "tool": after.tool, "edited": edited}
        if after.state == "approved_once" and before.first_by is not None:
            await journal.note("approval.first_voided", by, after.tenant_id, after.approval_id, {"run": after.run_id})
        action, kind = _DECIDED[after.state]
        await journal.note(action, by, after.tenant_id, after.approval_id, facts)
        await self._tell(journal, kind, after)

    async def expire(self, now: datetime, escalates: Callable[[ApprovalRecord], bool] = lambda _: False) -> list[str]:
        """Mark what is past its time; the ids of the runs that asked, which are resumable then.

        Those that `escalates` names are handed to people in the same transaction.
        """
        late = _WAITS & (approvals.c.expires_at <= now)
        if not await self._any(late):
            return []
        change = update(approvals).where(late).values(state="expired", decided_at=now).returning(*_COLUMNS)
        async with audited(self._db) as journal:
            found = [build(self._record, row) for row in await journal.connection.execute(change)]
            for record in found:
                facts = {"run": record.run_id, "tool": record.tool}
                await journal.note("approval.expired", PLATFORM, record.tenant_id, record.approval_id, facts)
                await self._tell(journal, "approval.expired", record)
                if escalates(record):
                    await raise_for(self._db, journal, record.run_id, record.tenant_id, "nobody decided", record.tool)
        return [record.run_id for record in found]

    async def warn(self, now: datetime, before: Callable[[ApprovalRecord], timedelta], longest: timedelta) -> None:
        """Tell once of each call that waits and has no more than `before` of it left, which is at most `longest`."""
        near = _WAITS & approvals.c.warned_at.is_(None) & (approvals.c.expires_at <= now + longest)
        async with self._db.read() as connection:
            rows = [build(self._record, row) for row in await connection.execute(select(*_COLUMNS).where(near))]
        for record in rows:
            if now < record.expires_at - before(record):
                continue
            once = update(approvals).where(_the(record.approval_id, record.tenant_id), near).values(warned_at=now)
            async with audited(self._db) as journal:
                if (await journal.connection.execute(once)).rowcount:
                    await self._tell(journal, "approval.expiring", record)

    async def void(self, run_id: str, tenant_id: str, why: str, *, decided: str = "") -> None:
        """Nothing of what a run asks for, and not the approval `decided` either, leads to anything any more."""
        of_run = (approvals.c.run_id == run_id) & (approvals.c.tenant_id == tenant_id)
        named = or_(_WAITS, (approvals.c.approval_id == decided) & (approvals.c.state == "approved"))
        values = {"state": "void", "decided_at": self._db.clock()}
        async with audited(self._db) as journal:
            change = update(approvals).where(of_run, named).values(values).returning(*_COLUMNS)
            for row in (await journal.connection.execute(change)).all():
                record = build(self._record, row)
                said = update(approvals).where(_the(record.approval_id, tenant_id))
                await journal.connection.execute(said.values(self._sealed(record, {"comment": why})))
                facts = {"run": run_id, "tool": record.tool}
                await journal.note("approval.voided", PLATFORM, tenant_id, record.approval_id, facts)
                await self._tell(journal, "approval.void", record)

    async def _tell(self, journal: Journal, kind: NoticeKind, record: ApprovalRecord) -> None:
        await note(
            self._db,
            journal.connection,
            kind,
            subject=record.approval_id,
            run_id=record.run_id,
            tenant_id=record.tenant_id,
            tool=record.tool,
            risk=record.risk,
        )

    def _sealed(self, of: ApprovalRecord, values: Mapping[str, Any]) -> Mapping[str, Any]:
        ids = {"run_id": of.run_id, "approval_id": of.approval_id, "tool": of.tool}
        return self._db.seals.seal(approvals, values, tenant_id=of.tenant_id, **ids)

    async def _any(self, those: ColumnElement[bool]) -> bool:
        async with self._db.read() as connection:
            return (await connection.execute(select(approvals.c.approval_id).where(those).limit(1))).first() is not None

    def _in(self, state: ApprovalState) -> ColumnElement[bool]:
        same, now = approvals.c.state == state, self._db.clock()
        if state in WAITING:
            return (_WAITS if state == "pending" else same) & (approvals.c.expires_at > now)
        if state == "expired":
            return or_(same, _WAITS & (approvals.c.expires_at <= now))
        return same

    # Last: from here on `list` is this method.
    async def list(
        self,
        tenant_id: str,
        state: ApprovalState = "pending",
        limit: int = 50,
        cursor: str | None = None,
        *,
        user_id: str | None = None,
        run_id: str | None = None,
    ) -> Page[ApprovalRecord]:
        """Newest first, those of one user's runs or of one run. `pending` is all that waits, for a second person too;
        what is past its time counts as expired, marked or not. Raises Invalid for limit or cursor."""
        query = select(*_COLUMNS).where(approvals.c.tenant_id == tenant_id, self._in(state))
        if user_id is not None:
            query = query.where(approvals.c.user_id == user_id)
        if run_id is not None:
            query = query.where(approvals.c.run_id == run_id)
        position = (approvals.c.created_at, approvals.c.approval_id)
        async with self._db.read() as connection:
            return await page(connection, query, self._record, position, limit, cursor)


def _the(approval_id: str, tenant_id: str) -> ColumnElement[bool]:
    return (approvals.c.approval_id == approval_id) & (approvals.c.tenant_id == tenant_id)


def _standing(record: ApprovalRecord, now: datetime) -> str:
    """Why a decision did not find what it was on."""
    if record.waits and record.expires_at > now:
        return "somebody approved or changed the call at the same moment: look at it again"
    return f"the approval is already {'expired' if record.waits else record.state}"
