"""Escalations as rows that people read."""

from typing import Protocol

MAX_REASON_CHARS = 200
MAX_DETAIL_CHARS = 4_000


class EscalationRow(Protocol):
    @property
    def escalation_id(self) -> str: ...


class EscalationBook(Protocol):
    """Where escalations are written."""

    async def create(self, run_id: str, tenant_id: str, reason: str, detail: str) -> EscalationRow: ...


class StoreEscalation:
    """Hands one run to a person; run and tenant are bound at construction."""

    def __init__(self, escalations: EscalationBook, *, run_id: str, tenant_id: str) -> None:
        self._escalations, self._run_id, self._tenant_id = escalations, run_id, tenant_id

    async def raise_(self, reason: str, *, detail: str = "") -> str:
        row = await self._escalations.create(
            self._run_id, self._tenant_id, reason[:MAX_REASON_CHARS], detail[:MAX_DETAIL_CHARS]
        )
        return row.escalation_id
