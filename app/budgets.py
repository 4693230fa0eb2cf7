"""The budgets of a month against their limits, for the doors: what the file allows, and how much of it is gone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.config.price import usd_to_micros
from app.config.schema import EVERYONE, Allowance, Config, Degrade
from app.records import Principal
from app.services.quota.book import Scope
from app.services.quota.standings import Standings
from app.usage import seen_tenant, seen_user

if TYPE_CHECKING:
    from app.workbench import Workbench


@dataclass(frozen=True, slots=True)
class Budgeted:
    """`thresholds` are the shares at which operators are told, rising; `steps` what becomes of calls from where on."""

    scope: Scope
    spent_micros: int
    held_micros: int
    limit_micros: int
    steps: tuple[Degrade, ...]
    thresholds: tuple[float, ...]

    @property
    def share(self) -> float:
        """Spent of the limit; a limit of nothing is used up."""
        return self.spent_micros / self.limit_micros if self.limit_micros else 1.0


async def budgets(bench: "Workbench", who: Principal, period: str, *, tenant_id: str | None = None) -> list[Budgeted]:
    """Those of a month (2026-11) that `who` may see, the most used first. Raises Forbidden, StoreUnavailable.

    Who lacks the scope `runs` sees its own user's budget and no other.
    """
    tenant, user = seen_tenant(who, tenant_id), seen_user(who)
    named = [scope for scope in _named(bench.config, who) if _is_seen(scope, tenant, user)]
    found = []
    for standing in await Standings(bench.store.database).month(period, tenant, named):
        allowance = _allowance(bench.config, standing.scope)
        # Without one: it was drawn on under a limit that the file no longer names.
        if allowance is not None and allowance.budget_usd_month is not None and _is_seen(standing.scope, tenant, user):
            found.append(
                Budgeted(
                    scope=standing.scope,
                    spent_micros=standing.spent_micros,
                    held_micros=standing.held_micros,
                    limit_micros=usd_to_micros(allowance.budget_usd_month),
                    steps=allowance.degrade,
                    thresholds=bench.config.alerts.budget_shares,
                )
            )
    return sorted(found, key=lambda budget: (-budget.share, str(budget.scope)))


def _is_seen(scope: Scope, tenant_id: str | None, user_id: str | None) -> bool:
    if user_id is not None and (scope.kind, scope.name) != ("user", user_id):
        return False
    return tenant_id in (None, scope.tenant_id)


def _named(config: Config, who: Principal) -> list[Scope]:
    """The scopes that have a budget before anything is spent of it: those that the file names, and the caller's own."""
    scopes = {Scope("tenant", who.tenant_id): None, Scope("user", who.tenant_id, who.user_id): None}
    for tenant_id, tenant in config.tenants.items():
        if tenant_id != EVERYONE:
            scopes[Scope("tenant", tenant_id)] = None
            scopes |= {Scope("user", tenant_id, name): None for name in tenant.users if name != EVERYONE}
            scopes |= {Scope("feature", tenant_id, name): None for name in tenant.features if name != EVERYONE}
            scopes |= {Scope("key", tenant_id, name): None for name in tenant.keys if name != EVERYONE}
    return [scope for scope in scopes if (item := _allowance(config, scope)) and item.budget_usd_month is not None]


def _allowance(config: Config, scope: Scope) -> Allowance | None:
    tenant = config.tenant(scope.tenant_id)
    if scope.kind == "tenant":
        return tenant
    group = {"user": tenant.users, "feature": tenant.features, "key": tenant.keys}[scope.kind]
    return group.get(scope.name) or group.get(EVERYONE)
