"""The Approvals tab in a browser: what waits anywhere in the tenant is decided from one place."""

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, ViewportSize, expect

from app.console.inbox_view import edited, fields
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


def test_a10_who_may_not_decide_sees_no_call_and_decides_none(sign_in: SignIn, server: Served, waiting: str) -> None:
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


@pytest.mark.parametrize(("size", "dark"), [(None, False), (None, True), (PHONE, False)])
def test_nothing_of_a_hostile_call_runs_or_is_cut_off(
    sign_in: SignIn, server: Served, waiting: str, pictures: Path, size: ViewportSize | None, dark: bool
) -> None:
    store = server.api.state.bench.store
    run_id = server.call(store.approvals.get(waiting, "acme")).run_id
    hostile = {
        ATTACK: ATTACK,
        "</textarea><img src=x onerror=stolen=1>": "</textarea><script>stolen=1</script>",
        "many": {"lines": [1, 2, {"deep": "x" * 400}]},
    }
    hostile_call = server.call(
        store.approvals.create(
            run_id,
            f"h{bool(size)}{dark}",
            "acme",
            "cleo",
            "create_ticket",
            hostile,
            "destructive",
            server.call(store.approvals.get(waiting, "acme")).expires_at,
        )
    )
    page = inbox(sign_in(dark=dark, **({"size": size} if size else {})))
    row(page, hostile_call.approval_id)
    expect(page.locator("#approval textarea")).to_have_count(4)
    assert page.locator("#approval img[src='x']").count() == 0
    assert page.evaluate("window.stolen") is None
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    wide = page.evaluate("(e => e.scrollWidth - e.clientWidth)(document.querySelector('#approval .scroll'))")
    assert wide == 0
    page.screenshot(path=pictures / f"inbox-{'phone' if size else 'wide'}-{'dark' if dark else 'light'}.png")


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
