"""What a caller may read of the ledger, for every door: the API, the console, the command.

The tenant comes from the credential; the owner alone looks across tenants or names another one, and who lacks the scope
`runs` sees only its own user's calls. How the sums are made is `services/quota/usage.py`'s business.
"""

from collections.abc import Iterator
from dataclasses import fields
from datetime import date
from typing import TYPE_CHECKING

from app.records import Principal
from app.services.quota.reconcile import Reconciliation
from app.services.quota.totals import Totals
from app.services.quota.usage import Dimension, UsageBook, UsageReport
from app.sheet import dollars, sheet
from graphs.errors import Forbidden

if TYPE_CHECKING:
    from app.workbench import Workbench


async def report(
    bench: "Workbench",
    who: Principal,
    group_by: tuple[Dimension, ...],
    *,
    since: date | None = None,
    until: date | None = None,
    tenant_id: str | None = None,
    limit: int = 200,
) -> UsageReport:
    """The sums that `who` may see; `tenant_id` narrows the owner's. Raises Forbidden, Invalid, StoreUnavailable."""
    return await UsageBook(bench.store.database).report(
        group_by=group_by,
        tenant_id=seen_tenant(who, tenant_id),
        user_id=seen_user(who),
        since=since,
        until=until,
        limit=limit,
    )


async def reconcile(bench: "Workbench", export: str, provider: str | None = None) -> Reconciliation:
    """A provider's export against the ledger; for the owner's doors alone. Raises Invalid, StoreUnavailable."""
    vendor_names = {name: model.model for name, model in bench.config.models.items()}
    return await UsageBook(bench.store.database).reconcile(export, provider=provider, vendor_names=vendor_names)


def seen_tenant(who: Principal, wanted: str | None) -> str | None:
    """Whose calls are looked at; None for all tenants'. Raises Forbidden."""
    if who.is_owner:
        return wanted
    if wanted is not None and wanted != who.tenant_id:
        raise Forbidden("only the owner may name another tenant", field="tenantId")
    return who.tenant_id


def seen_user(who: Principal) -> str | None:
    """The one user whose calls are looked at; None for all."""
    return None if who.may("runs") else who.user_id


def usage_csv(found: UsageReport) -> Iterator[str]:
    """The report's lines: a column a dimension, then the sums, money in micro-dollars and in dollars."""
    names = [field.name for field in fields(Totals)]
    yield from sheet(
        [*found.group_by, *names, "cost_usd"],
        (
            [*row.keys, *(getattr(row.totals, name) for name in names), dollars(row.totals.cost_micros)]
            for row in found.rows
        ),
    )
