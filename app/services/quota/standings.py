"""How the budgets of a month stand: what is spent of each, and what processes hold of it for calls in flight.

Exact at the moment of reading, whatever processes have not booked yet. A budget that nothing has drawn on has no row;
what its scope spent then comes from the ledger.
"""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote

from sqlalchemy import and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.quota.book import Scope
from app.services.quota.tables import budget_holds, budgets, ledger

_COLUMNS: Final = {"user": ledger.c.user_id, "feature": ledger.c.feature, "key": ledger.c.key_id}


class Reads(Protocol):
    """A database that can be read: the store's."""

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    scope: Scope
    spent_micros: int
    held_micros: int


class Standings:
    """Reads the budgets of a database."""

    def __init__(self, database: Reads) -> None:
        self._database = database

    async def month(self, period: str, tenant_id: str | None, named: Iterable[Scope] = ()) -> list[Standing]:
        """Every budget of that month (2026-11) that was drawn on, and those `named`; of one tenant, or of all."""
        async with self._database.read() as connection:
            rows = (await connection.execute(_drawn_on(period, tenant_id))).all()
            found = {scope: Standing(scope, int(spent), int(held)) for scope, spent, held in map(_read, rows)}
            for scope in named:
                if scope not in found and tenant_id in (None, scope.tenant_id):
                    spent = (await connection.execute(_spent(scope, period))).scalar_one()
                    found[scope] = Standing(scope, int(spent), 0)
        return list(found.values())


def _drawn_on(period: str, tenant_id: str | None) -> Any:
    """Scope, spent, held, and what calls have used up of what is held."""
    same = and_(budget_holds.c.scope == budgets.c.scope, budget_holds.c.period == budgets.c.period)
    used_up = func.coalesce(func.sum(budget_holds.c.unbooked_micros), 0).label("used_up")
    columns = (budgets.c.scope, budgets.c.spent_micros, budgets.c.held_micros)
    rows = select(*columns, used_up).select_from(budgets.outerjoin(budget_holds, same))
    rows = rows.where(budgets.c.period == period).group_by(*columns)
    if tenant_id is None:
        return rows
    inside = [f"{kind}:{quote(tenant_id, safe='')}/" for kind in _COLUMNS]
    own = budgets.c.scope == str(Scope("tenant", tenant_id))
    return rows.where(or_(own, *(budgets.c.scope.startswith(prefix, autoescape=True) for prefix in inside)))


def _read(row: Any) -> tuple[Scope, int, int]:
    kind, _, rest = row.scope.partition(":")
    tenant, _, name = rest.partition("/")
    return Scope(kind, unquote(tenant), name), row.spent_micros + row.used_up, row.held_micros - row.used_up


def _spent(scope: Scope, period: str) -> Any:
    conditions = [ledger.c.tenant_id == scope.tenant_id, ledger.c.period == period, ledger.c.state != "open"]
    if scope.kind != "tenant":
        conditions.append(_COLUMNS[scope.kind] == scope.name)
    return select(func.coalesce(func.sum(ledger.c.cost_micros), 0)).where(*conditions)
