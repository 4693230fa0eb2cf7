"""How the budgets of a month stand: what is spent of each, and what is held for calls in flight.

Read from the budgets' own rows, so a call that a process settled within its last beat still counts as held. A budget
that nothing has drawn on yet has no row; what its scope spent then comes from the ledger.
"""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.quota.book import Scope
from app.services.quota.tables import budgets, ledger

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
        rows = select(budgets).where(budgets.c.period == period)
        if tenant_id is not None:
            own = str(Scope("tenant", tenant_id))
            inside = [
                budgets.c.scope.startswith(f"{kind}:{quote(tenant_id, safe='')}/", autoescape=True) for kind in _COLUMNS
            ]
            rows = rows.where(or_(budgets.c.scope == own, *inside))
        async with self._database.read() as connection:
            found = {_scope(row.scope): (row.spent_micros, row.held_micros) for row in await connection.execute(rows)}
            for scope in named:
                if scope not in found and tenant_id in (None, scope.tenant_id):
                    spent = (await connection.execute(_spent(scope, period))).scalar_one()
                    found[scope] = (int(spent), 0)
        return [Standing(scope, spent, held) for scope, (spent, held) in found.items()]


def _scope(row: str) -> Scope:
    kind, _, rest = row.partition(":")
    tenant, _, name = rest.partition("/")
    return Scope(kind, unquote(tenant), name)  # type: ignore[arg-type]  # written by Scope itself


def _spent(scope: Scope, period: str) -> Any:
    conditions = [ledger.c.tenant_id == scope.tenant_id, ledger.c.period == period, ledger.c.state != "open"]
    if scope.kind != "tenant":
        conditions.append(_COLUMNS[scope.kind] == scope.name)
    return select(func.coalesce(func.sum(ledger.c.cost_micros), 0)).where(*conditions)
