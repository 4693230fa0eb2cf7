"""The read side of the ledger: sums by any dimension."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import date, datetime, timedelta
from itertools import combinations

import pytest

from app.services.quota.totals import Totals
from app.services.quota.usage import DIMENSIONS, UsageBook
from app.services.store.database import Database
from graphs.errors import Invalid
from graphs.types import Usage
from tests.services.quota.kit import ANN, Books, Clock, books, charge, spend

BOB = replace(ANN, user_id="bob", key_id="k2", feature="chat", run_id="r2")
EVE = replace(ANN, tenant_id="evil", user_id="ann", key_id="k3")


@asynccontextmanager
async def reading(book: Books) -> AsyncIterator[UsageBook]:
    database = await Database.open(book.url)
    yield UsageBook(database)
    await database.close()


async def fill(book: Books) -> None:
    """Two tenants, two days; one call in flight."""
    ledger = book.open()
    await spend(ledger, 400, usage=Usage(100, 20, cached_input_tokens=60))
    await spend(
        ledger, 30, payer=BOB, outcome="failed", usage=Usage(30, 0, estimated=True), error_code="upstream_timeout"
    )
    await spend(ledger, 50, payer=BOB, attempt=2, model="small", usage=Usage(40, 4))
    book.clock.pass_by(86_400)
    await spend(ledger, 70, payer=EVE, outcome="cancelled", usage=Usage(7, 7, estimated=True))
    await spend(ledger, 0, payer=EVE, outcome="cached", usage=Usage(0, 0))
    await (await ledger.reserve(charge(10**9))).recorded()


async def test_usage_is_summed_by_each_dimension_and_in_all(store_url: str):
    async with books(store_url) as book, reading(book) as usage:
        await fill(book)
        by_user = await usage.report(group_by=("tenant", "user"), tenant_id=None, since=None, until=None)
        assert [row.keys for row in by_user.rows] == [("acme", "ann"), ("acme", "bob"), ("evil", "ann")]
        assert by_user.rows[0].totals == Totals(1, 1, 100, 20, 60, 400, 0, 0, 0, 0, 0)
        assert by_user.rows[1].totals == Totals(1, 2, 70, 4, 0, 80, 1, 30, 1, 0, 0)
        assert by_user.rows[2].totals == Totals(2, 2, 7, 7, 0, 70, 1, 70, 0, 1, 1)
        assert by_user.total == Totals(4, 5, 177, 31, 60, 550, 2, 100, 1, 1, 1)
        assert by_user.total.estimated_share == pytest.approx(0.4)
        expected = {
            "tenant": 2,
            "user": 2,
            "feature": 2,
            "model": 2,
            "provider": 1,
            "day": 2,
            "run": 2,
            "key": 3,
            "outcome": 4,
        }
        for dimension in DIMENSIONS:
            report = await usage.report(group_by=(dimension,), tenant_id=None, since=None, until=None)
            assert (len(report.rows), report.groups) == (expected[dimension],) * 2
            assert sum((row.totals for row in report.rows), Totals()) == report.total == by_user.total
            costs = [row.totals.cost_micros for row in report.rows]
            assert costs == sorted(costs, reverse=True)
        for pair in combinations(DIMENSIONS, 2):
            assert (await usage.report(group_by=pair, tenant_id=None, since=None, until=None)).total == by_user.total


async def test_a_tenant_sees_its_own_days_and_nothing_else(store_url: str):
    async with books(store_url) as book, reading(book) as usage:
        await fill(book)
        day = book.clock.at.date()
        first = await usage.report(group_by=("day",), tenant_id=None, since=None, until=day - timedelta(days=1))
        assert [row.keys for row in first.rows] == [("2026-11-24",)]
        second = await usage.report(group_by=("tenant",), tenant_id=None, since=day, until=day)
        assert [row.keys for row in second.rows] == [("evil",)]
        acme = await usage.report(group_by=("tenant",), tenant_id="acme", since=day - timedelta(days=1), until=date.max)
        assert [row.keys for row in acme.rows] == [("acme",)]
        assert acme.total.cost_micros == 480
        nobody = await usage.report(group_by=("tenant",), tenant_id="' OR 1=1 --", since=None, until=None)
        assert (nobody.rows, nobody.total, nobody.groups) == ((), Totals(), 0)


@pytest.mark.parametrize(
    "at", ["2026-11-24T00:00:00+00:00", "2026-11-24T23:59:59.999999+00:00", "2026-11-25T00:59:00+01:00"]
)
async def test_a_call_is_found_on_the_utc_day_that_its_row_names(tmp_path, at: str):
    url = f"sqlite+aiosqlite:///{tmp_path / 'l.db'}"
    async with books(url, clock=Clock(datetime.fromisoformat(at))) as book, reading(book) as usage:
        await spend(book.open(), 5)
        day = date(2026, 11, 24)
        report = await usage.report(group_by=("day",), tenant_id=None, since=day, until=day)
        assert [row.keys for row in report.rows] == [("2026-11-24",)]


async def test_the_limit_cuts_rows_and_not_the_total(store_url: str):
    async with books(store_url) as book, reading(book) as usage:
        ledger = book.open()
        for number in range(5):
            await spend(ledger, 10 * number, payer=replace(ANN, user_id=f"u{number}"))
        report = await usage.report(group_by=("user",), tenant_id=None, since=None, until=None, limit=2)
        assert [row.keys for row in report.rows] == [("u4",), ("u3",)]
        assert (report.total.cost_micros, report.groups) == (100, 5)


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("groupBy", {"group_by": ()}),
        ("groupBy", {"group_by": ("tenant", "tenant")}),
        ("groupBy", {"group_by": ("tenant", "user", "model")}),
        ("groupBy", {"group_by": ("password",)}),
        ("since", {"since": date(2026, 2, 1), "until": date(2026, 1, 1)}),
        ("limit", {"limit": 0}),
        ("limit", {"limit": 10_001}),
    ],
)
async def test_a_question_that_cannot_be_answered_is_refused(field: str, given: dict):
    book = UsageBook(None)  # type: ignore[arg-type]  # refused before the database is asked
    with pytest.raises(Invalid) as refused:
        await book.report(**({"group_by": ("tenant",), "tenant_id": None, "since": None, "until": None} | given))
    assert refused.value.field == field
