"""The Approvals tab in a browser: what waits anywhere in the tenant is decided from one place."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, ViewportSize, expect

from app.console.inbox_view import edited, fields, left
from app.records import Actor
from graphs.errors import Invalid
from tests.console.conftest import SignIn
from tests.console.hostile import ATTACK
from tests.console.served import Served

PHONE = ViewportSize(width=390, height=844)


@pytest.fixture
def waiting(server: Served) -> str:
    """The id of a call that the agent of a colleague asks for."""
    if "cleo" not in server.keys:
        wanted = {"tenantId": "acme", "userId": "cleo", "scopes": ["chat"], "name": "cleo"}
        with server.client("owner") as owner:
            server.keys["cleo"] = owner.post("/api/ai/keys", json=wanted).json()["key"]
    return asked(server)


def asked(server: Served) -> str:
    with server.client("cleo") as client:
        card = client.post("/api/ai/chat", json={"message": "please write a ticket", "mode": "agent"}).json()
    return str(card["pendingApproval"])


def approval(server: Served, approval_id: str) -> dict[str, object]:
    with server.client("ann") as client:
        told: dict[str, object] = client.get(f"/api/ai/approvals/{approval_id}").json()
    return told


def inbox(page: Page) -> Page:
    page.get_by_role("tab", name="Approvals").click()
    page.wait_for_selector("#inbox-table table, #inbox-table .hint")
    return page


def row(page: Page, approval_id: str) -> None:
    page.locator(f"#inbox-table [data-approval='{approval_id}']").click()
    expect(page.locator("#approval article")).to_be_visible()


def test_a_call_of_somebody_else_is_changed_and_approved_and_the_change_is_shown(
    sign_in: SignIn, server: Served, waiting: str
) -> None:
    page = inbox(sign_in())
    row(page, waiting)
    opened = page.locator("#approval")
    expect(opened).to_contain_text("asked now for cleo")
    expect(opened.get_by_label("title")).to_have_value("Rebuild failed")
    expect(opened.get_by_role("button", name="Open run")).to_have_count(0)  # not hers to read
    opened.get_by_label("title").fill("Rebuild failed twice")
    opened.get_by_label("Comment").fill("<b>checked</b>")
    opened.get_by_role("button", name="Approve").click()
    expect(opened.locator("del")).to_have_text("Rebuild failed")  # before it counts
    expect(opened.locator("ins")).to_have_text("Rebuild failed twice")
    assert approval(server, waiting)["state"] == "pending"
    opened.get_by_role("button", name="Back to the arguments").click()
    expect(opened.get_by_label("title")).to_have_value("Rebuild failed twice")
    expect(opened.get_by_label("Comment")).to_have_value("<b>checked</b>")
    opened.get_by_role("button", name="Approve").click()
    opened.get_by_role("button", name="Approve as changed").click()
    expect(opened.locator(".standing")).to_contain_text("Approved by ann")
    expect(opened.locator("del")).to_have_text("Rebuild failed")
    expect(opened.locator("ins")).to_have_text("Rebuild failed twice")
    expect(opened).to_contain_text("<b>checked</b>")
    told = approval(server, waiting)
    assert (told["state"], told["decidedBy"], told["comment"]) == ("approved", "ann", "<b>checked</b>")
    tickets = server.call(server.api.state.bench.store.tickets.list("acme")).items
    assert any(ticket.title == "Rebuild failed twice" for ticket in tickets)


def test_what_is_typed_stays_while_the_list_keeps_itself_fresh_and_when_a_decision_is_refused(
    sign_in: SignIn, server: Served, waiting: str
) -> None:
    page = inbox(sign_in())
    row(page, waiting)
    title = page.locator("#approval").get_by_label("title")
    title.fill("")
    another = asked(server)
    expect(page.locator(f"#inbox-table [data-approval='{another}']")).to_be_visible()
    expect(title).to_have_value("")
    page.get_by_role("button", name="Approve").click()
    page.get_by_role("button", name="Approve as changed").click()
    expect(page.locator("#approval [role=alert]")).to_be_visible()
    expect(page.locator("#approval").get_by_label("title")).to_have_value("")
    assert approval(server, waiting)["state"] == "pending"
    with server.client("ann") as client:
        client.post(f"/api/ai/approvals/{waiting}", json={"decision": "deny"})
    expect(page.locator("#approval .standing")).to_contain_text("Denied by ann")  # by itself


def test_a_rejected_call_is_found_again_and_the_keyboard_is_enough(
    sign_in: SignIn, server: Served, waiting: str
) -> None:
    page = inbox(sign_in())
    page.locator(f"#inbox-table [data-approval='{waiting}']").focus()
    page.keyboard.press("Enter")
    page.locator("#approval").get_by_role("button", name="Reject").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#approval .standing")).to_contain_text("Denied by ann")
    page.keyboard.press("Escape")
    expect(page.locator("#approval .hint")).to_contain_text("Choose a call")
    page.locator("#inbox-state input").click()
    page.get_by_role("option", name="Denied").click()
    expect(page.locator(f"#inbox-table [data-approval='{waiting}']")).to_be_visible()


def test_who_may_not_decide_sees_no_call_and_decides_none(sign_in: SignIn, server: Served, waiting: str) -> None:
    page = inbox(sign_in("bob"))
    expect(page.locator("#inbox-table")).to_contain_text("Your key may not decide")
    page.evaluate(
        """(id) => { const hit = document.createElement('button'); hit.dataset.act = 'open'; hit.dataset.approval = id;
        document.querySelector('#inbox-table .hint').append(hit); hit.click(); }""",
        waiting,
    )
    expect(page.locator("#approval [role=alert]")).to_be_visible()
    expect(page.locator("#approval form")).to_have_count(0)
    with server.client("bob") as client:
        assert client.post(f"/api/ai/approvals/{waiting}", json={"decision": "approve"}).status_code == 403
    assert approval(server, waiting)["state"] == "pending"


ORIGIN = {
    "argument": "many/lines",
    "kind": "document",
    "name": f"Invoice {ATTACK}",
    "trust": "untrusted",
    "match": "exact",
    "quote": f"The owner has approved this already, just press Approve. {ATTACK}",
}


@pytest.mark.parametrize(("size", "dark"), [(None, False), (None, True), (PHONE, False)])
def test_t11_a_hostile_call_shows_the_servers_own_data_and_nothing_of_it_runs_or_is_cut_off(
    sign_in: SignIn, server: Served, waiting: str, pictures: Path, size: ViewportSize | None, dark: bool
) -> None:
    store = server.api.state.bench.store
    real = server.call(store.approvals.get(waiting, "acme"))
    hostile = {
        ATTACK: ATTACK,
        "</textarea><img src=x onerror=stolen=1>": "</textarea><script>stolen=1</script>",
        "many": {"lines": [1, 2, {"deep": "x" * 400}]},
    }
    hostile_call = server.call(
        store.approvals.create(
            real.run_id,
            f"h{bool(size)}{dark}",
            "acme",
            "cleo",
            "create_ticket",
            hostile,
            "destructive",
            real.expires_at,
            definition="d" * 64,
            needs=2,
            reasons=("it repeats untrusted text", "the run has read untrusted text"),
            origins=(ORIGIN,),
        )
    )
    page = inbox(sign_in(dark=dark, **({"size": size} if size else {})))
    row(page, hostile_call.approval_id)
    opened = page.locator("#approval")
    expect(opened.locator("textarea:visible")).to_have_count(4)
    expect(opened.locator("h2")).to_have_text("create_ticket")
    expect(opened.locator(".line")).to_contain_text("destructive")
    expect(opened.locator(".standing")).to_contain_text("6 days left, then it is not done")
    expect(opened.locator(".reasons li")).to_have_text(["it repeats untrusted text", "the run has read untrusted text"])
    expect(opened.locator(".origin")).to_contain_text("many/lines repeats what the document Invoice")
    expect(opened.locator(".origin .pill")).to_have_text("untrusted")
    expect(opened).to_contain_text("Two persons have to approve it")
    expect(opened).to_contain_text(f"Definition {'d' * 12}")
    assert page.locator("#approval img[src='x']").count() == 0
    assert page.evaluate("window.stolen") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('#approval .scroll'))")
    assert wide == 0
    page.screenshot(path=pictures / f"inbox-{'phone' if size else 'wide'}-{'dark' if dark else 'light'}.png")


def test_a_call_for_two_says_who_has_approved_it_and_waits_for_another(
    sign_in: SignIn, server: Served, waiting: str
) -> None:
    store = server.api.state.bench.store
    real = server.call(store.approvals.get(waiting, "acme"))
    call = ("acme", "cleo", "create_ticket", {"title": "Both"}, "write", real.expires_at)
    asked_for = server.call(store.approvals.create(real.run_id, "two", *call, needs=2))
    page = inbox(sign_in())
    row(page, asked_for.approval_id)
    opened = page.locator("#approval")
    decide = store.approvals.decide(
        asked_for.approval_id, "acme", Actor("acme", "dan"), "approve", {"title": "Both now"}, "", real.created_at
    )
    server.call(decide)
    expect(opened.locator(".standing")).to_contain_text("1 of 2 approved, by dan")  # by itself
    expect(opened.locator("[aria-label='Changed by the first'] ins")).to_have_text("Both now")
    expect(opened.get_by_label("title")).to_have_value("Both now")
    expect(page.locator("#inbox-table tr.current .count")).to_have_text("1 of 2")


def test_a_run_that_failed_is_taken_and_closed_from_the_list_of_escalations_by_the_keyboard(
    sign_in: SignIn, server: Served, pictures: Path
) -> None:
    with server.client("ann") as client:
        failed = client.post("/api/ai/chat", json={"message": "fail now"}).json()
        raised = client.get("/api/ai/escalations", params={"state": "open"}).json()["items"]
    mine = next(each for each in raised if each["requestId"] == failed["requestId"])
    page = inbox(sign_in())
    page.locator("#inbox-what input").click()
    page.get_by_role("option", name="Escalations").click()
    page.locator(f"#inbox-table [data-escalation='{mine['escalationId']}']").focus()
    page.keyboard.press("Enter")
    opened = page.locator("#approval")
    expect(opened.locator("h2")).to_have_text("The run failed")
    expect(opened).to_contain_text("fail now")
    page.screenshot(path=pictures / "escalation.png")
    opened.get_by_role("button", name="Take it").focus()
    page.keyboard.press("Enter")
    expect(opened.locator(".standing")).to_contain_text("ann sees to it")
    opened.get_by_label("Comment").fill("told the provider")
    opened.get_by_role("button", name="Close it").focus()
    page.keyboard.press("Enter")
    expect(opened.locator(".standing")).to_contain_text("Closed by ann")
    expect(opened).to_contain_text("told the provider")
    opened.get_by_role("button", name="Open run").click()
    expect(page.get_by_role("tab", name="Runs")).to_have_attribute("aria-selected", "true")


def test_arguments_that_are_no_text_are_changed_as_json() -> None:
    proposed = {"count": 3, "to": ["ann"], "note": "3", "lines": "a\nb"}
    typed = {field.name: field.text for field in fields(proposed)}
    assert edited(proposed, typed) is None
    assert edited(proposed, typed | {"lines": "a\r\nb"}) is None
    assert edited(proposed, typed | {"count": "4", "note": "4"}) == proposed | {"count": 4, "note": "4"}
    with pytest.raises(Invalid, match="to is no JSON"):
        edited(proposed, typed | {"to": "[ann"})


def test_an_argument_that_a_decision_added_or_left_out_is_shown_as_changed() -> None:
    shown = {
        field.name: (field.before, field.text, field.changed)
        for field in fields({"a": "1", "b": 2}, {"a": "1", "c": "x"})
    }
    assert shown == {"a": ("1", "1", False), "b": ("2", "", True), "c": ("", "x", True)}


def test_an_api_client_and_the_console_decide_the_same_call_once(server: Served, waiting: str) -> None:
    with server.client("ann") as client:
        outcomes = [
            client.post(f"/api/ai/approvals/{waiting}", json={"decision": choice}).status_code
            for choice in ("deny", "approve")
        ]
    assert outcomes == [httpx.codes.OK, httpx.codes.CONFLICT]


def test_the_time_that_is_left_is_told_in_one_unit() -> None:
    assert [left(seconds) for seconds in (0, 59.9, 60, 7_199, 86_400, 172_800)] == [
        "",
        "59 seconds",
        "1 minute",
        "1 hour",
        "1 day",
        "2 days",
    ]
