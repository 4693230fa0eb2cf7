"""The ledger against a provider's own bill."""

from contextlib import suppress
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.quota.export import Billed, read_export
from app.services.quota.usage import UsageBook
from app.services.store.database import Database
from graphs.errors import Invalid
from graphs.types import Usage
from tests.services.quota.kit import ANN, Books, books, charge, spend

DAY = date(2026, 11, 24)


async def against(book: Books, export: str, **given):
    database = await Database.open(book.url)
    try:
        return await UsageBook(database).reconcile(export, **given)
    finally:
        await database.close()


async def test_a_bill_is_compared_by_day_and_model_to_the_cent(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 1_230_000, model_version="gpt-4o-2024-08-06")
        guessed = await spend(ledger, 20_000, model_version="gpt-4o-2024-08-06", usage=Usage(9, 9, estimated=True))
        await spend(ledger, 700_001, model="small", model_version="mini-1")
        await spend(ledger, 999, model="embedded", provider="embedded")
        await spend(ledger, 5, outcome="cached")
        book.clock.pass_by(86_400)
        await spend(ledger, 40_000, model_version="gpt-4o-2024-08-06")
        await (await ledger.reserve(charge(10**9))).recorded()
        export = "date,model,cost\n2026-11-24,gpt-4o-2024-08-06,1.25\n2026-11-24,mini-1,0.71\n2026-11-25,other,0.30\n"
        found = await against(book, export, provider="lab")
        first, second, third, fourth = found.lines
        assert (first.day, first.model, first.agrees, first.difference_micros) == (DAY, "gpt-4o-2024-08-06", True, 0)
        assert (first.ours.estimated, first.ours.estimated_micros, first.estimated_calls) == (1, 20_000, (guessed,))
        assert (second.model, second.agrees, second.difference_micros) == ("mini-1", False, -9_999)
        assert (third.model, third.theirs, third.difference_micros) == ("gpt-4o-2024-08-06", None, 40_000)
        assert (fourth.model, fourth.ours.attempts, fourth.difference_micros) == ("other", 0, -300_000)
        assert (found.ours_micros, found.theirs_micros, found.difference_micros) == (1_990_001, 2_260_000, -269_999)
        assert not found.agrees


async def test_lines_that_are_each_less_than_a_cent_off_do_not_agree_where_their_sum_is_more(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        for name in ("a", "b", "c"):
            await spend(ledger, 14_000, model=name, model_version=name)
        exact = "date,model,cost\n" + "".join(f"2026-11-24,{name},0.0175\n" for name in "abc")
        found = await against(book, exact)
        assert [line.agrees for line in found.lines] == [True] * 3
        assert (found.difference_micros, found.agrees) == (-10_500, False)
        rounded = "date,model,cost\n" + "".join(f"2026-11-24,{name},0.01\n" for name in "abc")
        assert (await against(book, rounded)).agrees  # each was rounded down by 0.4 cents


async def test_amounts_that_were_rounded_one_by_one_may_each_be_half_a_cent_off(store_url: str):
    """Anthropic's and OpenAI's exports have a line a kind of token."""
    async with books(store_url) as book:
        await spend(book.open(), 26_000, model_version="claude")
        costs = {"uncached_input": "0.01", "cache_read": "0.01", "output": "0.02"}
        lines = [f"2026-11-24,claude,Default,{kind},{cost}\n" for kind, cost in costs.items()]
        head = "usage_date_utc,model,workspace,token_type,cost_usd\n"
        (line,) = (found := await against(book, head + "".join(lines))).lines
        assert (line.difference_micros, line.rounded, line.agrees, found.agrees) == (-14_000, 3, True, True)
        (line,) = (await against(book, head + "2026-11-24,claude,Default,all,0.04\n")).lines
        assert (line.difference_micros, line.agrees) == (-14_000, False)


async def test_a_model_is_found_by_version_configured_name_and_undated_name(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(ledger, 10_000, model="a", model_version="gpt-4o-2024-08-06")
        await spend(ledger, 10_000, model="a", model_version="", outcome="cancelled")
        await spend(ledger, 10_000, model="b", model_version="", outcome="cancelled")
        await spend(ledger, 10_000, model="claude", model_version="claude")
        export = "day;model;usd\n2026-11-24;gpt-4o;0.02\n2026-11-24;vendor-b;0.01\n2026-11-24;claude-20250219;0.01\n"
        found = await against(book, export, vendor_names={"b": "vendor-b"})
        assert found.agrees
        assert [line.ours.cost_micros for line in found.lines] == [10_000, 20_000, 10_000]


async def test_a_bill_of_tokens_alone_is_compared_by_tokens(store_url: str):
    async with books(store_url) as book:
        ledger = book.open()
        await spend(
            ledger, 10, usage=Usage(1_000, 50, cached_input_tokens=600, cache_write_tokens=100), model_version="c"
        )
        export = (
            "usage_date_utc,model_version,workspace,usage_input_tokens_no_cache,usage_input_tokens_cache_write_5m,"
            "usage_input_tokens_cache_read,usage_output_tokens\n2026-11-24,c,Default,300,100,600,51\n"
        )
        (line,) = (found := await against(book, export)).lines
        assert (line.difference_micros, line.difference_tokens, line.agrees) == (None, -1, False)
        assert (line.theirs, found.theirs_micros) == (Billed(1_000, 51, None), None)


def test_exports_of_the_vendors_are_read():
    costs = (
        "\ufeffstart_time,end_time,start_time_iso,end_time_iso,amount_value,amount_currency,line_item,project_id\r\n"
        '1763942400,1764028800,2025-11-24T00:00:00+00:00,2025-11-25,0.0123456,usd,"gpt-4o-2024-08-06, input",\r\n'
        '1763942400,1764028800,2025-11-24T00:00:00+00:00,2025-11-25,1.5e-05,usd,"gpt-4o-2024-08-06, output",\r\n'
    )
    assert read_export(costs).lines == {(date(2025, 11, 24), "gpt-4o-2024-08-06"): Billed(None, None, 12_361)}
    usage = (
        "start_time,num_model_requests,model,input_tokens,output_tokens,input_cached_tokens\n"
        "1763942400,5,gpt-4o,1000,500,800\n1763942400,1,gpt-4o,1,1,0\n\n"
    )
    assert read_export(usage).lines == {(date(2025, 11, 24), "gpt-4o"): Billed(1_001, 501, None)}
    table = 'Day\tModel name\tCost (USD)\n2025-11-24T23:30:00-01:00\tm\t"$1,234.50"\n2025-11-25\tm\t-0.50\n'
    assert read_export(table).lines == {(date(2025, 11, 25), "m"): Billed(None, None, 1_234_000_000, cents=2)}


@pytest.mark.parametrize(
    ("export", "said"),
    [
        ("", "no line"),
        ("date,model,cost\n", "no line"),
        ("when,model,cost\n2026-11-24,m,1\n", "no column for the day"),
        ("date,what,cost\n2026-11-24,m,1\n", "none for the model"),
        ("date,model,requests\n2026-11-24,m,1\n", "no column for the cost"),
        ("date,model,output_tokens\n2026-11-24,m,1\n", "no column for the cost"),
        ("date,model,cost\n2026-11-24,m\n", "line 2 of the export has too few"),
        ("date,model,cost\n\n2026-11-24,m,NaN\n", "line 3 of the export has an amount"),
        ("date,model,cost\n2026-11-24,m,Infinity\n", "line 2"),
        ("date,model,cost\n2026-11-24,m,1e308\n", "line 2"),
        ("date,model,cost\n2026-11-24,m,1e99999999999\n", "line 2"),
        ("date,model,cost\n2026-11-24,m,'1,5'\n", "line 2"),
        ("date,model,cost\n2026-11-24,m,free\n", "line 2"),
        ("date,model,cost\n11/24/2026,m,1\n", "line 2"),
        ("date,model,cost\n99999999999999,m,1\n", "line 2"),
        ("date,model,cost,currency\n2026-11-24,m,1,EUR\n", "in eur, not in US dollars"),
        ("date,model,input_tokens,output_tokens\n2026-11-24,m,-1,0\n", "line 2"),
        ("date,model,input_tokens,output_tokens\n2026-11-24,m,1.5,0\n", "line 2"),
        ('date,model,cost\n2026-11-24,"m,1\n', "not CSV"),
        ("date,model,cost\n2026-11-24,m," + "9" * 200_000 + "\n", "line 2"),
        ("date,model,cost\n2026-11-24,m\0,1\x00\n", "line 2"),
    ],
)
def test_an_export_that_cannot_be_read_is_refused_by_its_line(export: str, said: str):
    with pytest.raises(Invalid, match=said) as refused:
        read_export(export)
    assert refused.value.field == "export"


@given(st.text(max_size=300))
def test_no_text_is_read_as_anything_but_an_export_or_invalid(text: str):
    for export in (text, "date,model,cost,input_tokens,output_tokens\n" + text):
        with suppress(Invalid):
            read_export(export)


@given(st.lists(st.decimals(0, 1_000, places=8, allow_nan=False), min_size=1, max_size=20))
def test_the_sum_of_a_bill_is_exact_and_rounded_once(costs: list[Decimal]):
    text = "date,model,cost\n" + "".join(f"2026-11-24,m,{cost}\n" for cost in costs)
    (billed,) = read_export(text).lines.values()
    assert billed.cost_micros is not None
    assert abs(Decimal(billed.cost_micros) - sum(costs) * 1_000_000) <= Decimal("0.5")


async def test_what_the_ledger_books_is_what_a_provider_that_counts_the_same_bills(store_url: str):
    """The whole way: many calls of many payers, exported line by line in dollars, agree without a difference."""
    async with books(store_url) as book:
        ledger, costs = book.open(), [1, 333_333, 4_999, 10, 7_654_321]
        for number, cost in enumerate(costs):
            await spend(ledger, cost, payer=replace(ANN, tenant_id=f"t{number}"))
        export = "date,model,cost_usd\n" + "".join(f"2026-11-24,v1,{Decimal(cost) / 1_000_000:f}\n" for cost in costs)
        (line,) = (await against(book, export)).lines
        assert (line.difference_micros, line.agrees) == (0, True)
