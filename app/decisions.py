"""Who may decide on a tool call, and how many have to: the one way to a decision, whichever door it comes in by.

What a decision leads to is the runner's: it goes on with the run, here or in another process.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from app.config.approvals import ApprovalConfig, ApprovalTerms
from app.records import Principal
from app.services.store.records import ApprovalRecord
from app.services.store.store import Store
from graphs.errors import Forbidden
from graphs.types import Decision

DEFAULT_TTL_S: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """How a call is asked for: of how many persons, and until when."""

    needs: int
    expires_at: datetime


class Decisions:
    """The rules of the configuration over the approvals of the store."""

    def __init__(
        self,
        store: Store,
        clock: Callable[[], datetime],
        rules: ApprovalConfig = ApprovalConfig(),  # noqa: B008 - frozen
        *,
        ttl_s: float = DEFAULT_TTL_S,
    ) -> None:
        self._store, self._clock, self._rules, self._ttl_s = store, clock, rules, ttl_s

    def terms(self, approval: ApprovalRecord) -> ApprovalTerms:
        return self._rules.of(approval.tenant_id, approval.tool, approval.risk)

    def asked(self, tenant_id: str, tool: str, risk: str, needs: int) -> Asked:
        """For a call of which the tool policy says that it `needs` so many."""
        terms = self._rules.of(tenant_id, tool, risk)
        lives_s = self._ttl_s if terms.expires_after_s is None else terms.expires_after_s
        return Asked(max(needs, 1 + terms.two_person), self._clock() + timedelta(seconds=lives_s))

    def refusal(self, who: Principal, approval: ApprovalRecord, decision: Decision = "approve") -> str | None:
        """Why this person may not decide so; None where they may. Whoever asked for a call may always call it off."""
        if not who.may("approvals"):
            return "this key may not decide approvals; it needs the scope approvals"
        terms = self.terms(approval)
        if not terms.names(who.user_id, who.groups):
            return f"you are not among those who decide on {approval.tool}"
        if decision == "approve" and terms.own_runs == "refuse" and who.user_id == approval.user_id:
            return "somebody else has to approve what your own run asks for"
        return None

    async def decide(
        self,
        who: Principal,
        approval_id: str,
        decision: Decision,
        *,
        arguments: Mapping[str, Any] | None = None,
        comment: str = "",
        seen: str | None = None,
    ) -> ApprovalRecord:
        """Decide once, as somebody who may. Raises Missing, Forbidden, Conflict; see `Approvals.decide`."""
        approval = await self._store.approvals.get(approval_id, who.tenant_id)
        if (why := self.refusal(who, approval, decision)) is not None:
            raise Forbidden(why)
        return await self._store.approvals.decide(
            approval_id,
            who.tenant_id,
            by=who.actor,
            decision=decision,
            arguments=arguments,
            comment=comment,
            now=self._clock(),
            needs=1 + self.terms(approval).two_person,
            seen=seen,
        )

    async def sweep(self) -> None:
        """Warn of what has little time left, and end what has none."""
        now, terms = self._clock(), [self._rules, *self._rules.rules]
        if any(part.webhook_url_env for part in terms):
            longest = timedelta(seconds=max(part.warn_before_s for part in terms))
            await self._store.approvals.warn(
                now, lambda approval: timedelta(seconds=self.terms(approval).warn_before_s), longest
            )
        await self._store.approvals.expire(now, lambda approval: self.terms(approval).on_expiry == "escalate")
