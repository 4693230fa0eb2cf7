"""The ledger's sums as they go out. Money is in whole micro-dollars; `costUsd` says the same in dollars."""

from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Self

from pydantic import Field

from app.records import Camel
from app.services.quota.reconcile import Compared, Reconciliation
from app.services.quota.totals import Totals
from app.sheet import dollars

if TYPE_CHECKING:
    from app.services.quota.usage import UsageReport, UsageRow


class TotalsOut(Camel):
    """Of ended attempts; a call may take several. Cached input tokens are a part of the input tokens."""

    calls: int
    attempts: int
    failed: int
    cancelled: int
    cached: int = Field(description="Answered from our own cache, for nothing.")
    input_tokens: int
    output_tokens: int
    cached_input_tokens: int
    cost_usd_micros: int
    cost_usd: float
    estimated: int = Field(description="Attempts whose tokens were counted here: the provider reported none.")
    estimated_usd_micros: int = Field(description="Their part of the cost.")

    @classmethod
    def of(cls, totals: Totals) -> Self:
        return cls(**sums(totals))


class GroupOut(TotalsOut):
    """One group. Of the dimensions, those are set by which the report is grouped."""

    tenant: str | None = None
    user: str | None = None
    feature: str | None = None
    model: str | None = None
    provider: str | None = None
    day: str | None = None
    run: str | None = None
    key: str | None = None
    outcome: str | None = None

    @classmethod
    def of_row(cls, group_by: tuple[str, ...], row: "UsageRow") -> Self:
        return cls(**dict(zip(group_by, row.keys, strict=True)), **sums(row.totals))


class UsageOut(Camel):
    """The dearest groups first. `total` is over all `groups`, also those that the limit cut off."""

    group_by: tuple[str, ...]
    first: date = Field(alias="from")
    last: date = Field(alias="to", description="Included.")
    total: TotalsOut
    groups: int
    items: list[GroupOut]
    next_cursor: str | None = None

    @classmethod
    def of(cls, found: "UsageReport", first: date, last: date) -> Self:
        return cls(
            group_by=found.group_by,
            first=first,
            last=last,
            total=TotalsOut.of(found.total),
            groups=found.groups,
            items=[GroupOut.of_row(found.group_by, row) for row in found.rows],
            next_cursor=None,
        )


class ComparedOut(Camel):
    """A day and model. Differences are ours minus theirs; null where the export does not tell."""

    day: date
    model: str
    ours_usd_micros: int
    theirs_usd_micros: int | None
    difference_usd_micros: int | None
    difference_tokens: int | None
    in_export: bool
    agrees: bool
    estimated: int
    estimated_calls: tuple[str, ...] = Field(description="Ids in the ledger; not necessarily all.")

    @classmethod
    def of(cls, line: Compared) -> Self:
        return cls(
            day=line.day,
            model=line.model,
            ours_usd_micros=line.ours.cost_micros,
            theirs_usd_micros=line.theirs.cost_micros if line.theirs is not None else None,
            difference_usd_micros=line.difference_micros,
            difference_tokens=line.difference_tokens,
            in_export=line.theirs is not None,
            agrees=line.agrees,
            estimated=line.ours.estimated,
            estimated_calls=line.estimated_calls,
        )


class ReconciliationOut(Camel):
    """`agrees` when every line does, to the cent."""

    agrees: bool
    ours_usd_micros: int
    theirs_usd_micros: int | None
    difference_usd_micros: int | None
    items: list[ComparedOut]

    @classmethod
    def of(cls, found: Reconciliation) -> Self:
        return cls(
            agrees=found.agrees,
            ours_usd_micros=found.ours_micros,
            theirs_usd_micros=found.theirs_micros,
            difference_usd_micros=found.difference_micros,
            items=[ComparedOut.of(line) for line in found.lines],
        )


def sums(totals: Totals) -> dict[str, float]:
    """The fields of TotalsOut."""
    values: dict[str, float] = asdict(totals)
    cost, estimated = values.pop("cost_micros"), values.pop("estimated_micros")
    return values | {
        "cost_usd_micros": cost,
        "estimated_usd_micros": estimated,
        "cost_usd": float(dollars(totals.cost_micros)),
    }
