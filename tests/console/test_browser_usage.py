"""The Usage and Health tabs in a real browser: figures, files, alerts and switches, and what others may not see."""

import csv
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from app.records import Actor, Payer
from app.services.quota.book import Account, Scope
from tests.console.conftest import PATIENCE_MS, SignIn
from tests.console.hostile import SHORT
from tests.console.served import Served
from tests.ledger_rows import book, row, set_budget

pytestmark = pytest.mark.timeout(400)
expect.set_options(timeout=PATIENCE_MS)
MONTH = f"{datetime.now(UTC):%Y-%m}"


@pytest.fixture(scope="module", autouse=True)
def booked(server: Served) -> None:
    """A busy month of acme, a row of umbrella, and attacks in every name of a third."""
    now = datetime.now(UTC)
    ago = [max(now - timedelta(days=days), now.replace(day=1, hour=0, minute=0)) for days in range(3)]
    rows = [
        row("acme", "ann", "big", 2_000_000, ago[0], key_id=""),
        row("acme", "ann", "small", 500_000, ago[1], estimated=True),
        row("acme", "bob", "big", 1_000_000, ago[2], outcome="failed"),
        row("umbrella", "eve", "big", 4_000_000, ago[0]),
        row(SHORT, SHORT, SHORT, 7, ago[0], feature=SHORT, provider=SHORT, key_id=SHORT, outcome=SHORT, run_id=SHORT),
    ]
    server.call(book(server.api.state.bench.store, *rows))
    server.call(set_budget(server.api.state.bench.store, "tenant:acme", MONTH, 41_000_000, 4_000_000))


@pytest.fixture
def alert(server: Served) -> Iterator[str]:
    """The subject of an unread alert; each is told once, so every test has one of its own. An attack is beside it."""
    alerts, tenant = server.api.state.bench.watch.alerts, f"tenant-{uuid4().hex[:8]}"

    async def tell() -> None:
        alerts.note_spent(Account(Scope("tenant", tenant), MONTH), 8, 8)
        alerts.note_spent(Account(Scope("tenant", f"{tenant}{SHORT}"), MONTH), 8, 8)
        await alerts.tell()

    server.call(tell())
    yield f"tenant:{tenant}"
    for item in server.call(alerts.page(unread=True))[0]:
        server.call(alerts.acknowledge(item.alert_id, "test"))


def usage(page: Page) -> Page:
    page.get_by_role("tab", name="Usage").click()
    expect(page.locator(".tile").first).to_be_visible()
    return page


def health(page: Page) -> Page:
    page.get_by_role("tab", name="Health").click()
    expect(page.locator(".strip")).to_be_visible()
    return page


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_label(label, exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def test_a_user_sees_its_own_spending_and_its_own_budget(sign_in: SignIn) -> None:
    page = usage(sign_in("ann"))
    expect(page.locator(".tile .figure").first).to_have_text("$2.50")
    rows = page.locator("#usage .sums tbody tr")  # ann's free runs of other modules may be there too
    for cost in ("$2.00", "$0.50"):
        expect(rows.filter(has_text=cost)).to_have_count(1)
    expect(page.locator(".budget .whose b")).to_have_text(["ann"])
    expect(page.locator("#usage-board")).not_to_contain_text("eve")
    expect(page.get_by_label("Tenant", exact=True)).to_have_count(0)


def test_the_owner_sees_all_tenants_and_every_budget(sign_in: SignIn) -> None:
    page = usage(sign_in("owner"))
    expect(page.locator(".tile .figure").first).to_have_text("$7.50")
    expect(page.locator(".budget", has_text="acme").first).to_contain_text("$41.00 of $50.00")
    expect(page.locator(".budget", has_text="acme").first).to_contain_text("$4.00 held")
    choose(page, "Tenant", "umbrella")
    expect(page.locator(".tile .figure").first).to_have_text("$4.00")
    expect(page.locator(".budget .whose b")).to_have_text(["umbrella"])


def test_groups_of_two_dimensions_are_drawn_and_saved_as_the_file_says(sign_in: SignIn) -> None:
    page = usage(sign_in("owner"))
    choose(page, "Group by", "By day")
    choose(page, "Then by", "then by model")
    expect(page.locator("#usage .sums th").nth(1)).to_have_text("Model")
    expect(page.locator(".series li")).to_have_text(["big", "small", SHORT])
    assert page.locator(".plot rect").count() >= 3
    with page.expect_download() as saved:
        page.get_by_role("link", name="CSV").click()
    assert re.fullmatch(r"usage-day-model-[\d-]+\.csv", saved.value.suggested_filename)
    lines = list(csv.DictReader(Path(saved.value.path()).read_text(encoding="utf-8").splitlines()))
    assert sum(int(line["cost_micros"]) for line in lines) == 7_500_007


def test_days_are_chosen_and_an_empty_span_says_so(sign_in: SignIn) -> None:
    page = usage(sign_in("owner"))
    page.locator("#usage-bar label", has_text="Custom").click()
    page.get_by_label("First day").fill("2020-01-01")
    page.get_by_label("Last day").fill("2020-01-31")
    page.keyboard.press("Enter")
    expect(page.locator(".board .hint")).to_contain_text("Nothing was used in these days")
    expect(page.locator(".tile .figure").first).to_have_text("$0")
    expect(page.get_by_label("First day")).to_have_value("2020-01-01")


def test_attacks_in_every_name_are_shown_as_text(sign_in: SignIn, alert: str) -> None:
    page = usage(sign_in("owner"))
    for dimension in ("model", "tenant", "feature", "provider", "key", "outcome", "run"):
        choose(page, "Group by", f"By {dimension}")
        expect(page.locator("#usage .sums th").first).to_have_text(dimension.capitalize())
        expect(page.locator("#usage-board tbody")).to_contain_text(SHORT[:8] if dimension in {"key", "run"} else SHORT)
    health(page)
    expect(page.locator("#alerts")).to_contain_text("onerror")
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("window.stolen") is None


def test_an_alert_is_acknowledged_once_and_for_all(sign_in: SignIn, server: Served, alert: str) -> None:
    page = health(sign_in("owner"))
    mine = page.locator("#alerts li", has=page.get_by_text(alert, exact=True))
    expect(mine).to_contain_text("100% of the budget")
    mine.get_by_role("button").click()
    expect(mine).to_contain_text("read by default/owner")
    told, _ = server.call(server.api.state.bench.watch.alerts.page())
    assert [item.acknowledged_by for item in told if item.subject == alert] == ["default/owner"]


def test_a_key_is_switched_off_with_a_reason_and_on_with_a_second_click(sign_in: SignIn, server: Served) -> None:
    switches, key_id = server.api.state.bench.watch.switches, server.keys["bob"].split("_")[1]
    bob = Payer("acme", "bob", key_id)
    page = health(sign_in("owner"))
    page.get_by_role("button", name="Switch off…").click()
    sheet = page.get_by_role("dialog")
    sheet.get_by_label("What").select_option(f"key:{key_id}")
    sheet.get_by_label("Reason").fill("runaway <i>job</i>")
    page.keyboard.press("Enter")
    expect(sheet).to_have_count(0)
    expect(page.locator("#switches li")).to_contain_text("bob (acme/bob)")
    expect(page.locator("#switches li .detail")).to_have_text("runaway <i>job</i>")
    assert switches.off(bob).reason == "runaway <i>job</i>"
    again = page.locator("#switches").get_by_role("button", name=re.compile("^Switch key"))
    again.click()
    expect(again).to_have_text("Sure?")
    again.click()
    expect(page.locator("#switches")).to_contain_text("Nothing is off")
    assert switches.off(bob) is None


def test_a_model_is_switched_off_from_its_row_and_escape_changes_nothing(sign_in: SignIn, server: Served) -> None:
    page = health(sign_in("owner"))
    name = server.api.state.bench.gateway.models[0].name
    row_ = page.locator("#models tbody tr", has_text=name)
    row_.get_by_role("button").click()
    expect(page.get_by_label("Reason")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert server.api.state.bench.watch.switches.models_off == frozenset()
    row_.get_by_role("button").click()
    page.get_by_label("Reason").fill("drill")
    page.keyboard.press("Enter")
    expect(row_.locator(".pill")).to_have_text("switched off")
    row_.get_by_role("button").click()
    row_.get_by_role("button").click()
    expect(row_.locator(".pill")).to_have_text("closed")


def test_others_than_the_owner_find_no_switch_and_no_alert(sign_in: SignIn, alert: str) -> None:
    page = health(sign_in("ann"))
    expect(page.locator(".vital h2")).to_have_text(["Models", "Running now", "Waiting"])
    expect(page.locator("#models tbody tr").first).to_be_visible()
    assert page.locator("#health button").count() == 0
    expect(page.locator("#health")).not_to_contain_text("umbrella")


def test_a_forged_event_of_another_user_throws_no_switch(sign_in: SignIn, server: Served) -> None:
    page = health(sign_in("ann"))
    page.evaluate(
        """() => {
        const sheet = document.querySelector("#sheet .html-container > div");
        const form = document.createElement("form");
        form.dataset.act = "throw";
        form.innerHTML = '<input name="what" value="tenant:acme"><input name="reason" value="x"><button>x</button>';
        sheet.append(form);
        form.querySelector("button").click();
        const hit = document.createElement("button");
        hit.dataset.act = "restore"; hit.dataset.what = "tenant:acme";
        document.querySelector("#switches .html-container > div").append(hit);
        hit.click();
        }"""
    )
    expect(page.locator("#vitals .notice")).to_contain_text("Not allowed")
    assert server.api.state.bench.watch.switches.seen == ()


def test_the_health_tab_keeps_itself_fresh_while_it_is_looked_at(sign_in: SignIn, server: Served) -> None:
    page = health(sign_in("owner"))
    expect(page.locator("#switches")).to_contain_text("Nothing is off")
    switches = server.api.state.bench.watch.switches
    server.call(switches.turn_off("tenant", "globex", "drill", Actor("default", "cli")))
    expect(page.locator("#switches li")).to_contain_text("globex")
    server.call(switches.turn_on("tenant", "globex", Actor("default", "cli")))
    expect(page.locator("#switches")).to_contain_text("Nothing is off")


def test_nothing_is_cut_off_in_either_mode_and_any_size(sign_in: SignIn, pictures: Path, alert: str) -> None:
    page = sign_in("owner")
    for tab in (usage, health):
        tab(page)
        for width, height in ((1440, 900), (1024, 768), (390, 844)):
            page.set_viewport_size(ViewportSize(width=width, height=height))
            for mode in ("light", "dark"):
                page.screenshot(path=pictures / f"{tab.__name__}-{mode}-{width}.png")
                page.locator("#theme").click()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.documentElement.scrollHeight") <= height
            assert page.locator(f"#{tab.__name__}-board").evaluate("box => box.scrollWidth <= box.clientWidth")
