"""What one caller may use: the file's allowances of its tenant, user, feature and key, put together once.

An allowance is written for a name or, under `"*"`, for each name that is not listed; each name then has a count of its
own. Names come from credentials and headers, so keys quote them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote

from app.config.price import usd_to_micros
from app.config.schema import EVERYONE, Allowance, Config, Degrade, TenantConfig
from app.records import Payer
from app.services.quota.book import Scope
from app.services.quota.ledger import Budget
from app.services.quota.places import Room

MOST_CALLERS: Final = 20_000  # remembered; beyond it all are forgotten and looked up anew

Part = Literal["tenant", "user", "feature", "key"]


@dataclass(frozen=True, slots=True)
class Rate:
    """A limit a minute under the key of its count. `told` names it in headers and refusals."""

    key: str
    limit: int
    told: str


@dataclass(frozen=True, slots=True)
class Ladder:
    """A budget and what becomes of calls along it."""

    budget: Budget
    steps: tuple[Degrade, ...]

    def step_at(self, share: float) -> Degrade | None:
        """The last step that begins at or below that share of the budget."""
        return next((step for step in reversed(self.steps) if step.at <= share), None)


@dataclass(frozen=True, slots=True)
class Caller:
    """All that bounds one caller. Empty tuples and None are without limit."""

    requests: tuple[Rate, ...]
    tokens: tuple[Rate, ...]
    rooms: tuple[Room, ...]
    budgets: tuple[Budget, ...]
    ladders: tuple[Ladder, ...]
    models: frozenset[str] | None


def highest(steps: Iterable[Degrade | None]) -> Degrade | None:
    """Of several ladders' steps the one that lies highest."""
    return max((step for step in steps if step is not None), key=lambda step: step.at, default=None)


class Allowances:
    """The callers of a configuration. `models_of` resolves a model or route to its models' names."""

    def __init__(self, config: Config, models_of: Callable[[str], Iterable[str]]) -> None:
        self._config, self._models_of = config, models_of
        self._callers: dict[tuple[str, str, str, str], Caller] = {}
        self.bounded = bool(config.tenants)
        """Whether the file limits anybody at all."""

    def of(self, payer: Payer) -> Caller:
        names = (payer.tenant_id, payer.user_id, payer.feature, payer.key_id)
        caller = self._callers.get(names)
        if caller is None:
            if len(self._callers) >= MOST_CALLERS:
                self._callers.clear()
            caller = self._callers[names] = self._put_together(payer)
        return caller

    def budgets_of(self, tenant_id: str) -> list[Budget]:
        """The budgets that the file names for a tenant and inside it; those of `"*"` are each caller's own."""
        tenant = self._config.tenant(tenant_id)
        named: list[tuple[Scope, Allowance]] = [(Scope("tenant", tenant_id), tenant)]
        for part, group in _groups(tenant):
            named += [(Scope(part, tenant_id, name), item) for name, item in group.items() if name != EVERYONE]
        return [_budget(scope, item) for scope, item in named if item.budget_usd_month is not None]

    def _put_together(self, payer: Payer) -> Caller:
        tenant = self._config.tenant(payer.tenant_id)
        found: list[tuple[Scope, Allowance]] = [(Scope("tenant", payer.tenant_id), tenant)]
        named: dict[Part, str] = {"user": payer.user_id, "feature": payer.feature, "key": payer.key_id}
        for part, group in _groups(tenant):
            name = named[part]
            allowance = group.get(name) or (group.get(EVERYONE) if name else None)
            if allowance is not None:
                found.append((Scope(part, payer.tenant_id, name), allowance))
        return Caller(
            requests=tuple(_rates(found, "requests", lambda item: item.requests_per_minute)),
            tokens=tuple(_rates(found, "tokens", lambda item: item.tokens_per_minute)),
            rooms=tuple(
                Room(_count_key(scope, "places"), item.concurrent_runs)
                for scope, item in found
                if item.concurrent_runs is not None
            ),
            budgets=tuple(_budget(scope, item) for scope, item in found if item.budget_usd_month is not None),
            ladders=tuple(
                Ladder(_budget(scope, item), item.degrade)
                for scope, item in found
                if item.budget_usd_month is not None and item.degrade
            ),
            models=self._models([item for _, item in found]),
        )

    def _models(self, allowances: Sequence[Allowance]) -> frozenset[str] | None:
        """What all of the lists allow; None where there is no list."""
        lists = [
            frozenset(model for name in item.models for model in self._models_of(name))
            for item in allowances
            if item.models is not None
        ]
        return frozenset.intersection(*lists) if lists else None


def _groups(tenant: TenantConfig) -> tuple[tuple[Part, dict[str, Allowance]], ...]:
    return ("user", tenant.users), ("feature", tenant.features), ("key", tenant.keys)


def _rates(
    found: Sequence[tuple[Scope, Allowance]], what: str, limit_of: Callable[[Allowance], int | None]
) -> Iterable[Rate]:
    for scope, item in found:
        if (limit := limit_of(item)) is not None:
            yield Rate(_count_key(scope, what), limit, f"{what} of the {scope.kind}")


def _count_key(scope: Scope, what: str) -> str:
    """All counts of a tenant share a hash tag, so that a Redis cluster keeps them where one script sees them."""
    return f"{{{quote(scope.tenant_id, safe='')}}}:{scope.kind}:{quote(scope.name, safe='')}:{what}"


def _budget(scope: Scope, item: Allowance) -> Budget:
    assert item.budget_usd_month is not None, "asked only of allowances with a budget"
    return Budget(scope, usd_to_micros(item.budget_usd_month))
