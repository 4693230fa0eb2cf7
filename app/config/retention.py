"""`retention:` in pilothouse.yaml: how long what is over is kept, for everybody and by tenant, in days.

Where no days are named it is kept for ever. A conversation is as old as the last run in it, which has to be over.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field

from app.config.part import Part, laid_over, tenant_lines

Days = Annotated[float, Field(gt=0, le=36_525, allow_inf_nan=False)]
Kind = Literal["conversations", "runs", "feedback", "escalations", "approvals", "tickets", "documents"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class TenantRetention(Part):
    """Of one tenant. The ledger and the audit trail have no such time."""

    conversations_days: Days | None = Field(default=None, description="With their runs and all that belongs to those.")
    runs_days: Days | None = Field(default=None, description="Of runs without a conversation.")
    feedback_days: Days | None = None
    escalations_days: Days | None = Field(default=None, description="After they were closed.")
    approvals_days: Days | None = Field(default=None, description="After they were decided, and their run is over.")
    tickets_days: Days | None = None
    documents_days: Days | None = Field(default=None, description="After they were last written; tables too.")
    jobs_days: Days | None = Field(default=None, description="PILOTHOUSE_JOB_RETENTION_DAYS where absent.")

    @property
    def ages(self) -> Mapping[Kind, timedelta]:
        """How old what has an end may get."""
        told = {kind: getattr(self, f"{kind}_days") for kind in KINDS}
        return {kind: timedelta(days=days) for kind, days in told.items() if days is not None}


class RetentionConfig(TenantRetention):
    """For everybody, and what is different for the tenants that are listed; null there keeps for ever."""

    tenants: dict[str, TenantRetention] = Field(default_factory=dict)

    def of(self, tenant_id: str) -> Self:
        return laid_over(self, self.tenants.get(tenant_id))

    @property
    def jobs_of_tenants(self) -> Mapping[str, float]:
        """The days of those tenants whose jobs have some of their own."""
        return {name: own.jobs_days for name, own in self.tenants.items() if own.jobs_days is not None}

    @property
    def forgets(self) -> bool:
        """Whether anything but jobs ever goes."""
        return any(part.ages for part in (self, *self.tenants.values()))


def retention_lines(config: RetentionConfig) -> list[tuple[str, str]]:
    """What `pilothouse config check` says: whose, and for how long what is kept."""
    return tenant_lines(_line, config, config.of, config.tenants)


def _line(kept: TenantRetention) -> str:
    said = [f"{kind} {age / timedelta(days=1):g} d" for kind, age in kept.ages.items()]
    if kept.jobs_days is not None:
        said.append(f"jobs {kept.jobs_days:g} d")
    return ", ".join(said) or "all but jobs for ever"
