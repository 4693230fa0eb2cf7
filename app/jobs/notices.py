"""Passing on what people asked to hear of: each notice becomes a signed delivery, a job, in one transaction.

An event holds ids alone: whoever hears of it looks the rest up with a key of their own.
"""

from typing import Any, Final

from app.config.approvals import ApprovalConfig
from app.records import Principal
from app.services.jobs.callbacks import deliver
from app.services.jobs.desk import JobDesk
from app.services.store.records import Notice
from app.services.store.store import Store

PASS_S: Final = 2.0
AT_ONCE: Final = 200
SENDER: Final = "system"


class Courier:
    """Takes what waits to the URLs that the rules name for its tenant, tool and risk; what no rule names ends here."""

    def __init__(self, store: Store, rules: ApprovalConfig, desk: JobDesk) -> None:
        self._store, self._rules, self._desk = store, rules, desk

    async def pass_on(self) -> None:
        """Whatever process does it, and however often: a notice is one delivery under its own id."""
        if not (waiting := await self._store.notices.waiting(AT_ONCE)):
            return
        database = self._store.database
        async with database.write() as connection:
            for notice in waiting:
                variable = self._rules.of(notice.tenant_id, notice.tool, notice.risk).webhook_url_env
                if variable is not None:
                    who = Principal(notice.tenant_id, SENDER, frozenset())
                    await deliver(database, connection, notice.notice_id, who, {"urlEnv": variable, **_event(notice)})
            await self._store.notices.passed_on(connection, [notice.notice_id for notice in waiting])
        self._desk.nudge()


def _event(notice: Notice) -> dict[str, Any]:
    subject = "approvalId" if notice.kind.startswith("approval.") else "escalationId"
    return {
        "subject": notice.subject,
        "type": notice.kind,
        "timestamp": notice.created_at.isoformat(),
        "data": {subject: notice.subject, "requestId": notice.run_id, "tenantId": notice.tenant_id},
    }
