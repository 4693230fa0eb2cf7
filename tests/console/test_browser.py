"""The console as a person uses it, in a real browser against the real stack."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.console.conftest import PATIENCE_MS, SignIn
from tests.console.hostile import SHORT, write_hostile_run
from tests.console.served import Served

pytestmark = pytest.mark.timeout(400)
expect.set_options(timeout=PATIENCE_MS)
QUESTION = "Which states can an approval have?"


def choose(page: Page, mode: str) -> None:
    page.locator("#mode label", has_text=mode).click()


def ask(page: Page, text: str, mode: str = "RAG") -> None:
    choose(page, mode)
    page.locator("#message textarea, #message input").fill(text)
    page.keyboard.press("Enter")


def settled(page: Page, turns: int = 1) -> None:
    expect(page.locator("#history .turn")).to_have_count(turns)
    expect(page.locator("#live .turn")).to_have_count(0)


def run_of(page: Page) -> str:
    return page.locator("#history .turn").last.get_attribute("data-run") or ""


def test_a_question_gets_an_answer_whose_citation_opens_the_cited_text(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, QUESTION)
    expect(page.locator("#live .question")).to_have_text(QUESTION)
    settled(page)
    quote = page.locator("#sources .source .quote").first.inner_text()
    page.locator("#history .chip").first.click()
    expect(page.locator("#sources mark").first).to_be_in_viewport()
    marked = " ".join(page.locator("#sources mark").all_inner_texts())
    assert "".join(quote.split()) == "".join(marked.split())
    page.locator("#close-document").click()
    expect(page.locator("#sources .source .number").first).to_have_text("1")


def test_a_question_without_an_answer_in_the_sources_is_refused_visibly(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, "Who won the football world cup in 1974?")
    settled(page)
    expect(page.locator(".no-answer")).to_contain_text("The sources hold no answer")
    expect(page.locator("#history .answer")).to_have_count(0)


def test_a_tool_waits_for_its_approval_and_the_run_goes_on_after_it(sign_in: SignIn, server: Served) -> None:
    page = sign_in()
    ask(page, "please write a ticket", "Agent")
    card = page.locator(".approval")
    expect(card).to_contain_text("create_ticket")
    expect(card.locator(".risk")).to_have_text("write")
    expect(card.locator("dd").nth(1)).to_have_text("<b>Look</b> at the log.")
    card.get_by_role("button", name="Approve").click()
    expect(page.locator("#history .call .pill")).to_have_text("ok")
    expect(page.locator("#history .answer")).to_contain_text("That is settled now.")
    tickets = server.call(server.api.state.bench.store.tickets.list("acme")).items
    assert [ticket.title for ticket in tickets if ticket.run_id == run_of(page)] == ["Rebuild failed"]


def test_a_rejected_tool_leaves_nothing_behind(sign_in: SignIn, server: Served) -> None:
    page = sign_in()
    ask(page, "please write a ticket", "Agent")
    page.locator(".approval").get_by_role("button", name="Reject").click()
    expect(page.locator(".decided")).to_contain_text("rejected by ann")
    tickets = server.call(server.api.state.bench.store.tickets.list("acme")).items
    assert [ticket for ticket in tickets if ticket.run_id == run_of(page)] == []


def test_a_thumb_and_its_comment_are_stored(sign_in: SignIn, server: Served) -> None:
    page = sign_in()
    ask(page, "hello", "Chat")
    settled(page)
    page.get_by_role("button", name="Bad answer").click()
    page.locator(".comment input").fill("too short <i>")
    page.keyboard.press("Enter")
    expect(page.locator(".comment .saved")).to_have_text("Comment saved")
    opinion = server.call(server.api.state.bench.store.feedback.for_run(run_of(page), "acme"))[0]
    assert (opinion.user_id, opinion.rating, opinion.comment) == ("ann", "down", "too short <i>")


def test_escape_stops_the_run_and_what_was_said_stays(sign_in: SignIn, server: Served) -> None:
    page = sign_in()
    ask(page, "hold on", "Chat")
    expect(page.locator("#live .answer")).to_contain_text("Half a sentence")
    page.keyboard.press("Escape")
    settled(page)
    expect(page.locator("#history .notice")).to_contain_text("Stopped")
    expect(page.locator("#history .answer")).to_contain_text("Half a sentence")
    expect(page.get_by_role("button", name="Send")).to_be_visible()
    record = server.call(server.api.state.bench.store.runs.get(run_of(page), "acme", "ann"))
    assert record.status == "cancelled"


def test_a_failed_run_says_what_to_do(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, "please fail", "Chat")
    settled(page)
    expect(page.locator("#history .notice")).to_contain_text("The answer broke off")
    expect(page.locator("#history .notice")).to_contain_text("choose another model")
    expect(page.locator("#history .notice code")).to_have_text("upstream_broke_off")


def test_an_answer_without_a_model_is_marked_as_one(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, "please refuse", "Chat")
    settled(page)
    expect(page.locator("#history .notice")).to_contain_text("No model could answer")
    expect(page.locator("#history .answer")).to_contain_text("I cannot answer just now")


def test_x04_a_hostile_answer_neither_runs_nor_fetches_anything(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, "something hostile", "Chat")
    settled(page)
    expect(page.locator("#history .answer")).to_contain_text("end")
    assert page.evaluate("window.stolen") is None
    assert page.locator("#history .answer").locator("img, script, svg, div, iframe, [style]").count() == 0


def test_x01_x05_attacks_in_every_stored_text_are_shown_as_text(sign_in: SignIn, server: Served) -> None:
    """Past the guards: seven ways to have an image or a sound fetched, none of which leaves the browser (`sign_in`)."""
    conversation, run = server.call(write_hostile_run(server.api.state.bench.store, "acme", "ann"))
    page = sign_in(path=f"/console/?c={conversation}")
    expect(page.locator("#history .answer")).to_contain_text("onerror=window.stolen=1")
    expect(page.locator("#history .no-image").first).to_contain_text("evil.test")
    page.locator("#history .chip").first.click()
    expect(page.locator("#sources .document")).to_contain_text("The document is gone")
    page.locator("#history").get_by_text("open run").click()
    page.locator(".fall summary").first.click()
    expect(page.locator(".fall .io").first).to_contain_text("onerror=window.stolen=1")
    expect(page.locator("#table tbody")).to_contain_text("onerror")
    assert page.locator("img[src='x'], b[x], .turns script").count() == 0
    assert page.evaluate("window.stolen") is None
    page.goto(f"{server.url}/console/?run={run}")
    expect(page.locator(".report h2")).to_contain_text("onerror=window.stolen=1")
    assert page.evaluate("window.stolen") is None
    fetching = "[src*='evil.test'], [poster*='evil.test'], [style*='evil.test'], [srcset], [background]"
    assert page.locator(fetching).count() == 0


def test_x05_whatever_anybody_named_runs_in_no_tab(sign_in: SignIn, server: Served) -> None:
    """A tenant, user, key, feature, document, and a call that waits, all of them named as attacks."""
    with server.client("owner") as owner:
        wanted = {"tenantId": SHORT, "userId": SHORT, "scopes": ["chat"], "name": SHORT}
        assert owner.post("/api/ai/keys", json=wanted).status_code == 201
        document = {"id": SHORT, "title": SHORT, "text": SHORT, "metadata": {"note": SHORT}}
        owner.post("/api/ai/documents", json={"collection": "named", "documents": [document]})
        assert owner.post("/api/ai/chat", json={"message": f"hello {SHORT}", "feature": SHORT}).status_code == 200
        asked = owner.post("/api/ai/chat", json={"message": f"a ticket, {SHORT}", "mode": "agent"}).json()
        assert asked["status"] == "waiting"
    page = sign_in("owner")
    shows = {
        "Knowledge": "#kn-collections",
        "Runs": "#table tbody",
        "Approvals": ".inbox, .approval, #inbox",
        "Jobs": "#jobs-table",
        "Usage": ".usage, #usage, [role=tabpanel]:visible",
        "Health": "[role=tabpanel]:visible",
    }
    for tab, shown in shows.items():
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(shown).first).to_be_visible()
        if tab == "Knowledge":
            page.locator("#kn-collections [data-collection=named]").click()
            expect(page.locator("#knowledge, [role=tabpanel]:visible").first).to_contain_text("onerror")
        assert page.locator("img[src='x'], [onerror]").count() == 0, tab
        assert page.evaluate("window.stolen") is None, tab


def test_x03_a_link_shows_its_whole_address_before_it_is_followed(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, "something hostile", "Chat")
    settled(page)
    expect(page.locator("#history .host").last).to_have_text("elsewhere.test")
    link = page.locator("#history a.outside").last
    expect(link).to_have_attribute("rel", "noreferrer noopener nofollow")
    link.click()
    expect(page.locator("dialog.leaving code")).to_have_text("https://elsewhere.test/x?d=secret")
    page.get_by_role("button", name="Stay").click()
    expect(page.locator("dialog.leaving")).to_have_count(0)
    assert len(page.context.pages) == 1


def test_a_run_opens_into_its_stations_and_has_an_address(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, QUESTION)
    settled(page)
    run = run_of(page)
    page.locator("#history").get_by_text("open run").click()
    names = page.locator(".fall .name span")
    expect(names.filter(has_text="retrieve")).to_have_count(1)
    page.locator(".fall summary", has_text="retrieve").first.click()
    expect(page.locator(".fall details[open] .io")).to_contain_text(QUESTION)
    page.wait_for_url(re.compile(rf"\?run={run}$"))
    fresh = sign_in(path=f"/console/?run={run}")
    expect(fresh.locator(".report h2")).to_have_text(QUESTION)
    expect(fresh.locator("#table tr.current")).to_contain_text(QUESTION)
    fresh.locator(".report .chip").first.click()
    expect(fresh.locator("#run-document mark").first).to_be_in_viewport()


def test_runs_are_filtered_by_what_was_asked_and_how_it_ended(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, "please fail in a way to be found", "Chat")
    settled(page)
    page.get_by_role("tab", name="Runs").click()
    page.locator("#search textarea, #search input").fill("to be found")
    expect(page.locator("#table tbody tr")).to_have_count(1)
    expect(page.locator("#table tbody tr .pill")).to_have_text("failed")
    page.locator("#runs-mode label", has_text="Agent").click()
    expect(page.locator("#table")).to_contain_text("No run fits these filters")


def test_a_run_of_another_user_is_not_shown(sign_in: SignIn) -> None:
    page = sign_in("ann")
    ask(page, "hello", "Chat")
    settled(page)
    other = sign_in("bob", path=f"/console/?run={run_of(page)}")
    expect(other.locator("#detail .notice")).to_contain_text("Not found")
    expect(other.locator("#table")).to_contain_text("No runs yet")


def test_a_conversation_is_reopened_by_its_address_and_deleted_with_a_second_click(sign_in: SignIn) -> None:
    page = sign_in()
    ask(page, "hello to be deleted", "Chat")
    settled(page)
    page.wait_for_url(re.compile(r"\?c=[0-9a-f]{32}$"))
    page.reload()
    expect(page.locator("#history .question")).to_have_text("hello to be deleted")
    current = page.locator(".shelf .current")
    current.hover()
    current.locator(".forget").click()
    expect(current.locator(".forget")).to_have_text("Delete?")
    current.locator(".forget").click()
    expect(page.locator(".welcome")).to_be_visible()
    expect(page.locator(".shelf")).not_to_contain_text("hello to be deleted")


def test_a_slash_focuses_the_message_and_the_theme_is_remembered(sign_in: SignIn) -> None:
    page = sign_in()
    page.locator("#new").focus()
    page.keyboard.press("/")
    expect(page.locator("#message textarea, #message input")).to_be_focused()
    assert not page.evaluate("document.body.classList.contains('dark')")
    page.locator("#theme").click()
    page.reload()
    page.wait_for_selector("#header .identity b:not(:empty)")
    assert page.evaluate("document.body.classList.contains('dark')")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (1024, 768)], ids=["wide", "narrow"])
def test_nothing_is_cut_off_in_either_mode_and_size(
    sign_in: SignIn, pictures: Path, dark: bool, size: tuple[int, int]
) -> None:
    name = f"{'dark' if dark else 'light'}-{size[0]}"
    page = sign_in(dark=dark, size=ViewportSize(width=size[0], height=size[1]))
    page.screenshot(path=pictures / f"empty-{name}.png")
    ask(page, QUESTION)
    settled(page)
    page.screenshot(path=pictures / f"answer-{name}.png")
    page.locator("#history").get_by_text("open run").click()
    expect(page.locator(".fall")).to_be_visible()
    page.screenshot(path=pictures / f"run-{name}.png")
    wide, high = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert wide <= size[0]
    assert high <= size[1]
