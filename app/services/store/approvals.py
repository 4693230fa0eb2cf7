"""Approvals: a tool call that a person must decide on. Exactly one decision wins, in the database."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select, update

from app.ids import new_id
from app.records import Actor, ApprovalState
from app.services.audit import PLATFORM, Action, audited
from app.services.store.database import Database
from app.services.store.page import build, columns, page
from app.services.store.records import ApprovalRecord, Page
from app.services.store.tables import approvals, runs
from graphs.errors import Conflict, Missing
from graphs.types import Decision, Risk

_COLUMNS = columns(approvals, ApprovalRecord)
_DECIDED: Mapping[Decision, tuple[ApprovalState, Action]] = {
    "approve": ("approved", "approval.approved"),
    "deny": ("denied", "approval.denied"),
}


class Approvals:
    """What waits for a person, and what persons said."""

    def __init__(self, database: Database) -> None:
        self._db = database

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
    ) -> ApprovalRecord:
        """Ask once for each interrupt of a run: the same pair again gives the first record. Raises Missing."""
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
        }
        asked = select(*_COLUMNS).where(
            approvals.c.run_id == run_id, approvals.c.interrupt_id == interrupt_id, approvals.c.tenant_id == tenant_id
        )
        async with audited(self._db) as journal:
            run = select(runs.c.run_id).where(runs.c.run_id == run_id, runs.c.tenant_id == tenant_id)
            if (await journal.connection.execute(run)).first() is None:
                raise Missing("no such run")
            once = self._db.insert(approvals).on_conflict_do_nothing(index_elements=["run_id", "interrupt_id"])
            new = (await journal.connection.execute(once.values(row))).rowcount
            record = build(ApprovalRecord, (await journal.connection.execute(asked)).one())
            if new:
                facts = {"run": run_id, "tool": tool, "risk": risk}
                await journal.note("approval.asked", Actor(tenant_id, user_id), tenant_id, record.approval_id, facts)
            return record

    async def get(self, approval_id: str, tenant_id: str) -> ApprovalRecord:
        """Raises Missing."""
        async with self._db.read() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(_the(approval_id, tenant_id)))).first()
        if row is None:
            raise Missing("no such approval")
        return build(ApprovalRecord, row)

    async def of_run(self, run_id: str, tenant_id: str) -> list[ApprovalRecord]:
        """All approvals that a run asked for, oldest first; empty for another tenant's run."""
        query = select(*_COLUMNS).where(approvals.c.run_id == run_id, approvals.c.tenant_id == tenant_id)
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(approvals.c.created_at, approvals.c.approval_id))
            return [build(ApprovalRecord, row) for row in rows]

    async def decide(
        self,
        approval_id: str,
        tenant_id: str,
        by: Actor,
        decision: Decision,
        arguments: Mapping[str, Any] | None,
        comment: str,
        now: datetime,
    ) -> ApprovalRecord:
        """Decide it, if it is pending and not past its time; of many callers at once one wins.

        `arguments` replaces what was proposed. Raises Conflict for a decided or expired one, Missing.
        """
        state, action = _DECIDED[decision]
        values = {"state": state, "decided_by": by.user_id, "decided_at": now, "decided_arguments": arguments}
        change = (
            update(approvals)
            .where(_the(approval_id, tenant_id), approvals.c.state == "pending", approvals.c.expires_at > now)
            .values(**values, comment=comment)
            .returning(*_COLUMNS)
        )
        async with audited(self._db) as journal:
            row = (await journal.connection.execute(change)).first()
            if row is not None:
                facts = {"run": row.run_id, "tool": row.tool, "edited": arguments is not None}
                await journal.note(action, by, tenant_id, approval_id, facts)
        if row is None:
            standing = await self.get(approval_id, tenant_id)
            now_is = "expired" if standing.state == "pending" else standing.state
            raise Conflict(f"the approval is already {now_is}")
        return build(ApprovalRecord, row)

    async def expire(self, now: datetime) -> list[str]:
        """Mark what is past its time; the ids of the runs that asked, which are resumable then."""
        change = (
            update(approvals)
            .where(approvals.c.state == "pending", approvals.c.expires_at <= now)
            .values(state="expired", decided_at=now)
            .returning(approvals.c.approval_id, approvals.c.run_id, approvals.c.tenant_id)
        )
        async with audited(self._db) as journal:
            late = (await journal.connection.execute(change)).all()
            for row in late:
                await journal.note("approval.expired", PLATFORM, row.tenant_id, row.approval_id, {"run": row.run_id})
        return [row.run_id for row in late]

    def _in(self, state: ApprovalState) -> ColumnElement[bool]:
        same, now = approvals.c.state == state, self._db.clock()
        if state == "pending":
            return same & (approvals.c.expires_at > now)
        if state == "expired":
            return or_(same, (approvals.c.state == "pending") & (approvals.c.expires_at <= now))
        return same

    # Last: from here on `list` is this method.
    async def list(
        self, tenant_id: str, state: ApprovalState = "pending", limit: int = 50, cursor: str | None = None
    ) -> Page[ApprovalRecord]:
        """Newest first. What is past its time counts as expired, marked or not. Raises Invalid for limit or cursor."""
        query = select(*_COLUMNS).where(approvals.c.tenant_id == tenant_id, self._in(state))
        position = (approvals.c.created_at, approvals.c.approval_id)
        async with self._db.read() as connection:
            return await page(connection, query, ApprovalRecord, position, limit, cursor)


def _the(approval_id: str, tenant_id: str) -> ColumnElement[bool]:
    return (approvals.c.approval_id == approval_id) & (approvals.c.tenant_id == tenant_id)
