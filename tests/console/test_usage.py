"""The pure parts of the Usage and Health tabs: days, columns, amounts, budgets, and who sees what of the server."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.budgets import Budgeted
from app.config.schema import Degrade
from app.console.budgets import BudgetView
from app.console.chart import MOST_SERIES, OTHER, chart
from app.console.figures import compact, money, money_mark, portion
from app.console.health_view import choices, models, vitals
from app.console.period import period
from app.console.usage_view import Question, rows, tiles
from app.console.view import draw
from app.health import Health, QueueHealth, SwitchHealth, TargetHealth, TenantLoad, seen_by
from app.records import Principal
from app.services.quota.book import Scope
from app.services.quota.totals import Totals
from app.services.quota.usage import UsageReport, UsageRow
from app.services.store.records import KeyRecord
from graphs.errors import Invalid

TODAY = date(2026, 3, 3)
NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
OWNER = Principal("default", "owner", frozenset({"owner"}), "k0")
ANN = Principal("acme", "ann", frozenset({"chat"}), "k1")


@pytest.mark.parametrize(
    ("name", "first", "last", "days"),
    [
        ("month", "", "", ("2026-03-01", "2026-03-03")),
        ("last", "", "", ("2026-02-01", "2026-02-28")),
        ("week", "", "", ("2026-02-25", "2026-03-03")),
        ("custom", "2026-01-05", "2026-01-09", ("2026-01-05", "2026-01-09")),
        ("custom", "2026-01-09", "2026-01-05", ("2026-01-05", "2026-01-05")),
        ("custom", "0001-01-01", "9999-12-31", ("2026-02-02", "2026-03-03")),
        ("custom", "<b>", "", ("2026-02-02", "2026-03-03")),
        ("whatever", "", "", ("2026-03-01", "2026-03-03")),
    ],
)
def test_a_period_is_whole_days_whatever_a_browser_sends(
    name: str, first: str, last: str, days: tuple[str, str]
) -> None:
    found = period(name, TODAY, first, last)
    assert (found.first.isoformat(), found.last.isoformat()) == days


amounts = st.dictionaries(
    st.tuples(st.sampled_from(["2026-03-01", "2026-03-02", "2026-03-03"]), st.sampled_from("abcdefghij")),
    st.integers(0, 10**12),
    max_size=30,
)


@given(amounts)
def test_every_column_is_as_high_as_what_it_stands_for(values: dict[tuple[str, str], int]) -> None:
    totals: dict[str, int] = {}
    for (day, _), value in values.items():
        totals[day] = totals.get(day, 0) + value
    plot = chart(values, totals, date(2026, 3, 1), TODAY)
    ceiling = plot.marks[-1][0] or 1
    assert plot.total == sum(values.values()) == sum(series.total for series in plot.series)
    for column in plot.columns:
        assert sum(piece.value for piece in column.pieces) == column.total
        assert sum(piece.height for piece in column.pieces) == pytest.approx(100 * column.total / ceiling, abs=1e-2)
        assert all(piece.top >= -1e-3 for piece in column.pieces)
        assert column.bar_left >= 0
        assert column.bar_left + column.bar_width <= 100 + 1e-3
    assert len(plot.series) <= MOST_SERIES + 1


def test_what_has_no_colour_of_its_own_is_other_and_what_was_cut_off_too() -> None:
    values = {("2026-03-01", f"m{number}"): 100 - number for number in range(8)}
    plot = chart(values, {"2026-03-01": 1_000}, date(2026, 3, 1), TODAY)
    assert [series.name for series in plot.series] == ["m0", "m1", "m2", "m3", "m4", "m5", OTHER]
    assert plot.series[-1].total == 1_000 - sum(range(95, 101))
    assert OTHER not in plot.colours


def test_days_without_calls_have_a_column_and_long_spans_are_shown_by_month() -> None:
    short = chart({}, {"2026-03-02": 5}, date(2026, 3, 1), TODAY)
    assert [column.total for column in short.columns] == [0, 5, 0]
    long = chart(
        {("2026-01-31", "a"): 1, ("2026-02-01", "a"): 2}, {"2026-01-31": 1, "2026-02-01": 2}, date(2025, 11, 9), TODAY
    )
    assert [(column.label, column.total) for column in long.columns][2:4] == [("January 2026", 1), ("February 2026", 2)]


@pytest.mark.parametrize(
    ("micros", "shown"),
    [
        (0, "$0"),
        (3, "<$0.0001"),
        (1_234, "$0.0012"),
        (12_345_678, "$12.35"),
        (-2_500_000, "-$2.50"),
        (9_876_543_210, "$9,876.54"),
    ],
)
def test_money_never_reads_as_nothing_where_there_is_some(micros: int, shown: str) -> None:
    assert money(micros) == shown


def test_amounts_are_short() -> None:
    assert [compact(number) for number in (0, 999, 1_000, 12_345, 999_600, 1_240_000, 3e9)] == [
        *("0", "999", "1k", "12.3k", "1M", "1.24M", "3B"),
    ]
    assert [portion(share) for share in (0, 0.0004, 0.031, 0.5, 0.9995, 1)] == [
        *("0 %", "<0.1 %", "3.1 %", "50 %", ">99.9 %", "100 %"),
    ]
    assert [money_mark(mark) for mark in (0, 200_000, 2_500, 1_500_000_000)] == ["$0", "$0.20", "$0.0025", "$1,500"]


def report(*found: tuple[tuple[str, ...], int], by: tuple[str, ...]) -> UsageReport:
    made = tuple(UsageRow(keys, Totals(calls=1, attempts=1, cost_micros=cost)) for keys, cost in found)
    total = Totals(len(made), len(made), cost_micros=sum(cost for _, cost in found))
    return UsageReport(by, made, total, len(made))  # type: ignore[arg-type]


def test_rows_are_shares_of_the_whole_and_days_stand_in_their_order() -> None:
    found = rows(report((("big",), 300), (("",), 100), by=("model",)), "cost", {})
    assert [(row.names[0].text, row.share) for row in found] == [("big", 0.75), ("", 0.25)]
    days = rows(report((("2026-03-01", "a"), 9), (("2026-03-02", "a"), 1), by=("day", "model")), "cost", {})
    assert [row.names[0].text for row in days] == ["2026-03-02", "2026-03-01"]


def test_keys_have_their_names_and_runs_lead_to_themselves() -> None:
    key, run = rows(report((("k1", "0123456789abcdef"), 1), by=("key", "run")), "calls", {"k1": "shop · k1"})[0].names
    assert (key.text, key.full, key.run) == ("shop · k1", "k1", "")
    assert (run.text, run.run) == ("01234567", "0123456789abcdef")


def test_a_question_from_a_browser_is_checked_and_has_a_file() -> None:
    asked = Question.of(period("month", TODAY), "user", "", "", "<b>", across=True)
    assert (asked.dimensions, asked.measure) == (("tenant", "user"), "cost")
    assert asked.query == "groupBy=tenant%2Cuser&from=2026-03-01&to=2026-03-03&format=csv"
    assert Question.of(period("month", TODAY), "day", "model", "a&b", "tokens", across=True).query.count(
        "tenantId=a%26b"
    )
    for names in (("", ""), ("call_id", ""), ("model", "password")):
        with pytest.raises(Invalid):
            Question.of(period("month", TODAY), *names, "", "cost", across=False)


def test_estimates_are_told_as_a_share_of_the_cost() -> None:
    told = tiles(Totals(calls=10, attempts=12, cost_micros=1_000, estimated=3, estimated_micros=40, failed=2), 10)
    assert [(tile.name, tile.figure) for tile in told] == [
        ("Cost", "$0.0010"),
        ("Calls", "10"),
        ("Tokens", "0"),
        ("Estimated", "4.0 %"),
    ]
    assert told[1].under == "2 failed · 2 retries"
    assert told[3].under == "of the cost: 3 attempts without the provider's count"


LADDER = (Degrade(at=0.8, route="cheap"), Degrade(at=1.0, answer="refuse"))


@pytest.mark.parametrize(
    ("spent", "held", "word", "widths", "next_step"),
    [
        (10, 5, "Within", (10, 5), "From 80 %: calls take the route cheap"),
        (50, 0, "Past 50 %", (50, 0), "From 80 %: calls take the route cheap"),
        (80, 30, "Degraded", (80, 20), "Now: calls take the route cheap"),
        (130, 9, "Used up", (100, 0), "Now: calls are refused"),
    ],
)
def test_a_budget_says_in_words_what_its_bar_shows(
    spent: int, held: int, word: str, widths: tuple[int, int], next_step: str
) -> None:
    budget = BudgetView.of(Budgeted(Scope("tenant", "acme"), spent, held, 100, LADDER, (0.5, 0.8, 1.0)))
    assert (budget.word, (budget.spent_width, budget.held_width), budget.next_step) == (word, widths, next_step)
    assert [step.text for step in budget.steps] == [
        "At 50 %: operators are told",
        "At 80 %: calls take the route cheap",
    ]


def test_a_budget_of_nothing_is_used_up() -> None:
    budget = BudgetView.of(Budgeted(Scope("user", "acme", "ann"), 0, 0, 0, (), ()))
    assert (budget.word, budget.spent_width, budget.held_width) == ("Used up", 100, 0)


HEALTH = Health(
    at=NOW,
    well=False,
    window_s=300,
    targets=(
        TargetHealth(name="big", provider="lab", breaker="open", retry_in_s=4.2, calls=10, failures=5),
        TargetHealth(name="small", provider="lab", breaker="closed", calls=10),
        TargetHealth(name="tiny", provider="lab", breaker="closed", switched_off=True),
    ),
    queue=QueueHealth(
        running=7,
        waiting=3,
        tenants=(
            TenantLoad(tenant_id="acme", running=2, waiting=1),
            TenantLoad(tenant_id="umbrella", running=5, waiting=2),
        ),
    ),
    switches=(SwitchHealth(kind="model", name="tiny", reason="costs", by="default/owner", created_at=NOW),),
    commits_waiting=4,
    trace_backlog=None,
)


def test_others_than_the_owner_see_nothing_of_other_tenants() -> None:
    seen = seen_by(ANN, HEALTH, frozenset({"small"}))
    assert [target.name for target in seen.targets] == ["small"]
    assert (seen.queue.running, seen.queue.waiting) == (2, 1)
    assert [load.tenant_id for load in seen.queue.tenants] == ["acme"]
    assert seen.switches == ()
    assert [vital.name for vital in vitals(ANN, seen, 256)] == ["Models", "Running now", "Waiting"]
    drawn = draw("queue", queue=seen.queue, places=256, owner=False)
    assert "umbrella" not in drawn
    assert "256" not in drawn
    assert {model.told for model in models(ANN, seen)} == {""}


def test_what_is_in_trouble_stands_first_and_says_so_in_words() -> None:
    found = models(OWNER, seen_by(OWNER, HEALTH, None))
    assert [(model.name, model.word, model.error_rate) for model in found] == [
        ("big", "open", 0.5),
        ("tiny", "switched off", 0.0),
        ("small", "closed", 0.0),
    ]
    told = {vital.name: (vital.figure, vital.word, vital.tone) for vital in vitals(OWNER, HEALTH, 7)}
    assert told["Models"] == ("1 of 3", "big, tiny out", "warn")
    assert told["Running now"] == ("7", "of 7 places", "warn")
    assert told["Traces"] == ("?", "the store does not answer", "warn")


def test_what_is_off_already_cannot_be_chosen_again() -> None:
    def key(key_id: str, revoked: datetime | None = None) -> KeyRecord:
        return KeyRecord(key_id, "acme", "ann", "shop", ("chat",), NOW, None, revoked)

    found = choices(HEALTH, [key("k1"), key("k2", NOW)], ["globex"])
    assert [choice.value for choice in found["Models"]] == ["model:big", "model:small"]
    assert [choice.value for choice in found["Tenants"]] == ["tenant:acme", "tenant:globex", "tenant:umbrella"]
    assert [choice.value for choice in found["Keys"]] == ["key:k1"]
