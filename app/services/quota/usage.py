"""Reads the ledger: what was used and what it cost, by any dimension, and whether the provider's own bill agrees.

Calls in flight are not in it: their cost is not known yet.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, Protocol, get_args

from sqlalchemy import ColumnElement, and_, case, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.services.quota.export import read_export
from app.services.quota.reconcile import Reconciliation, reconcile
from app.services.quota.tables import ledger
from app.services.quota.totals import Totals
from graphs.errors import Invalid

Dimension = Literal["tenant", "user", "feature", "model", "provider", "day", "run", "key", "outcome"]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)
MAX_ROWS: Final = 10_000
LISTED_ESTIMATES: Final = 1_000

_COLUMNS: Final[Mapping[Dimension, ColumnElement[str]]] = {
    "tenant": ledger.c.tenant_id,
    "user": ledger.c.user_id,
    "feature": ledger.c.feature,
    "model": ledger.c.model,
    "provider": ledger.c.provider,
    "day": ledger.c.day,
    "run": ledger.c.run_id,
    "key": ledger.c.key_id,
    "outcome": ledger.c.outcome,
}


class Reads(Protocol):
    """A database that can be read: the store's."""

    def read(self) -> AbstractAsyncContextManager[AsyncConnection]: ...


@dataclass(frozen=True, slots=True)
class UsageRow:
    """One group; `keys` are its values in the order of the report's `group_by`."""

    keys: tuple[str, ...]
    totals: Totals


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The dearest groups first. `total` is over all `groups`, also those that the limit cut off."""

    group_by: tuple[Dimension, ...]
    rows: tuple[UsageRow, ...]
    total: Totals
    groups: int


class UsageBook:
    """Reads the ledger of a database."""

    def __init__(self, database: Reads) -> None:
        self._database = database

    async def report(
        self,
        *,
        group_by: tuple[Dimension, ...],
        tenant_id: str | None,
        since: date | None,
        until: date | None,
        user_id: str | None = None,
        limit: int = 200,
    ) -> UsageReport:
        """Sums by one or two dimensions, of one tenant (of one user in it) or of all, over the given UTC days.

        Users and features are named within their tenant: across tenants they are told apart only when the tenant is a
        dimension too. Raises Invalid.
        """
        _check(group_by, since, until, limit)
        columns = [_COLUMNS[dimension] for dimension in group_by]
        sums = _sums()
        # One statement, so that the rows and their total are of the same moment.
        statement = (
            select(
                *columns,
                *sums,
                *(func.sum(column).over().label(f"all_{column.name}") for column in sums),
                func.count().over().label("groups"),
            )
            .where(ledger.c.state != "open", *_within(tenant_id, since, until, user_id=user_id))
            .group_by(*columns)
            .order_by(literal_column("cost_micros").desc(), *columns)
            .limit(limit)
        )
        async with self._database.read() as connection:
            found = (await connection.execute(statement)).all()
        rows = tuple(UsageRow(tuple(row[: len(columns)]), _totals(row)) for row in found)
        if not found:
            return UsageReport(group_by, (), Totals(), 0)
        return UsageReport(group_by, rows, _totals(found[0], "all_"), found[0].groups)

    async def reconcile(
        self, export: str, *, provider: str | None = None, vendor_names: Mapping[str, str] | None = None
    ) -> Reconciliation:
        """Compare a provider's export (CSV) with the ledger, by day and model, over the days that the export covers.

        `vendor_names` gives the vendor's name of a model where the ledger knows it by another one. Raises Invalid.
        """
        bill = await asyncio.to_thread(read_export, export)
        days = [day for day, _ in bill.lines]
        # A cached answer was made by us: no provider bills it.
        ours = and_(
            ledger.c.state != "open", ledger.c.outcome != "cached", *_within(None, min(days), max(days), provider)
        )
        columns = (ledger.c.day, ledger.c.model, ledger.c.model_version)
        sums = select(*columns, *_sums()).where(ours).group_by(*columns)
        estimates = select(*columns, ledger.c.call_id).where(ours, ledger.c.estimated).limit(LISTED_ESTIMATES)
        async with self._database.read() as connection:
            booked = {(row.day, row.model, row.model_version): _totals(row) for row in await connection.execute(sums)}
            estimated = [
                ((row.day, row.model, row.model_version), row.call_id) for row in await connection.execute(estimates)
            ]
        return reconcile(bill, booked, estimated, vendor_names or {})


def _check(group_by: tuple[Dimension, ...], since: date | None, until: date | None, limit: int) -> None:
    if not 1 <= len(group_by) <= 2 or len(set(group_by)) != len(group_by) or not set(group_by) <= set(DIMENSIONS):
        raise Invalid(f"group by one or two of {', '.join(DIMENSIONS)}", field="groupBy")
    if since is not None and until is not None and since > until:
        raise Invalid("the first day lies after the last", field="since")
    if not 1 <= limit <= MAX_ROWS:
        raise Invalid(f"the limit must be from 1 to {MAX_ROWS}", field="limit")


def _within(
    tenant_id: str | None,
    since: date | None,
    until: date | None,
    provider: str | None = None,
    user_id: str | None = None,
) -> Sequence[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if tenant_id is not None:
        conditions.append(ledger.c.tenant_id == tenant_id)
    if user_id is not None:
        conditions.append(ledger.c.user_id == user_id)
    if provider is not None:
        conditions.append(ledger.c.provider == provider)
    if since is not None:
        conditions.append(ledger.c.started_us >= _micros(since))
    if until is not None and until < date.max:
        conditions.append(ledger.c.started_us < _micros(until + timedelta(days=1)))
    return conditions


def _micros(day: date) -> int:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return (datetime(day.year, day.month, day.day, tzinfo=UTC) - epoch) // timedelta(microseconds=1)


def _sums() -> Sequence[Any]:
    """One column a field of Totals, under its name."""

    def where(condition: ColumnElement[bool], value: Any = 1) -> Any:
        return func.sum(case((condition, value), else_=0))

    columns = {
        "calls": where(ledger.c.attempt == 1),
        "attempts": func.count(),
        "input_tokens": func.sum(ledger.c.input_tokens),
        "output_tokens": func.sum(ledger.c.output_tokens),
        "cached_input_tokens": func.sum(ledger.c.cached_input_tokens),
        "cost_micros": func.sum(ledger.c.cost_micros),
        "estimated": where(ledger.c.estimated),
        "estimated_micros": where(ledger.c.estimated, ledger.c.cost_micros),
        "failed": where(ledger.c.outcome == "failed"),
        "cancelled": where(ledger.c.outcome == "cancelled"),
        "cached": where(ledger.c.outcome == "cached"),
    }
    return [columns[field.name].label(field.name) for field in fields(Totals)]


def _totals(row: Any, prefix: str = "") -> Totals:
    # PostgreSQL sums BIGINT as NUMERIC, which arrives as a Decimal.
    return Totals(*(int(getattr(row, prefix + field.name)) for field in fields(Totals)))
