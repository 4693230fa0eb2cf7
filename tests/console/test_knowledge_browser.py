"""The Knowledge tab in a real browser: collections and documents, read, searched, uploaded and deleted, and by whom."""

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, ViewportSize, expect

from tests.console.conftest import PATIENCE_MS, SignIn
from tests.console.hostile import SHORT
from tests.console.served import Served

pytestmark = pytest.mark.timeout(400)
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture(scope="module", autouse=True)
def shelved(server: Served) -> None:
    """Thirty logs and an attack in two collections of a tenant of their own; dora may write, rob may only read."""
    with server.client("owner") as owner:
        for user, scopes in {"dora": ["documents"], "rob": ["chat"], "ida": ["approvals"]}.items():
            wanted = {"tenantId": "harbour", "userId": user, "scopes": scopes, "name": user}
            server.keys[user] = owner.post("/api/ai/keys", json=wanted).json()["key"]
    logs = [
        {
            "id": f"log/{day:02}",
            "title": f"Log of day {day}",
            "text": f"The wind was {day} knots. " + "The helmsman kept the course." * (day == 7),
            "metadata": {"day": day, "ship": "Aurora" if day % 2 else "Beagle"},
        }
        for day in range(30)
    ]
    odd = {"id": SHORT, "title": SHORT, "text": f"An attack: {SHORT}", "metadata": {"note": SHORT}}
    with server.client("dora") as dora:
        for collection, documents in {"logs": logs, "odd": [odd]}.items():
            made = dora.post("/api/ai/documents", json={"collection": collection, "documents": documents})
            assert made.status_code == 201


def knowledge(page: Page) -> Page:
    page.get_by_role("tab", name="Knowledge").click()
    expect(page.locator("#kn-facts h1, #kn-facts .notice").first).to_be_visible()
    return page


def choose(page: Page, collection: str) -> None:
    shown = page.locator(f"#kn-collections [data-collection={collection}]")
    if shown.get_attribute("aria-current") == "false":
        shown.click()
    expect(page.locator("#kn-facts h1")).to_contain_text(collection)


def test_a_collection_says_what_it_holds_and_the_handbook_that_nobody_writes_it(sign_in: SignIn) -> None:
    page = knowledge(sign_in("dora"))
    expect(page.locator("#kn-collections .title")).to_have_text(["logs", "odd", "handbook"])
    expect(page.locator("#kn-facts dl")).to_contain_text(re.compile(r"Documents\s*30\s*Chunks\s*30"))
    expect(page.locator("#kn-facts dl")).to_contain_text(re.compile(r"logs@[\d.]+"))
    expect(page.locator("#kn-facts dl")).to_contain_text("all-MiniLM-L6-v2")
    expect(page.get_by_role("button", name=re.compile("^Delete")).first).to_be_visible()
    choose(page, "handbook")
    expect(page.locator("#kn-facts .pill")).to_have_text("read-only")
    expect(page.locator("#kn-table tbody tr")).to_have_count(3)
    expect(page.get_by_role("button", name=re.compile("^Delete"))).to_have_count(0)


def test_documents_are_turned_page_by_page_and_filtered(sign_in: SignIn) -> None:
    page = knowledge(sign_in("dora"))
    choose(page, "logs")
    expect(page.locator("#kn-table tbody tr")).to_have_count(25)
    page.locator("#kn-pager").get_by_role("button", name="Older").click()
    expect(page.locator("#kn-table tbody tr")).to_have_count(5)
    page.locator("#kn-pager").get_by_role("button", name="Newer").click()
    expect(page.locator("#kn-table tbody tr")).to_have_count(25)
    page.get_by_label("Filter documents").fill("DAY 1")
    expect(page.locator("#kn-table tbody tr")).to_have_count(11)
    page.get_by_label("Filter documents").fill("%")
    expect(page.locator("#kn-table .hint")).to_contain_text("No document fits")


def test_a_document_opens_from_the_keyboard_and_escape_closes_it(sign_in: SignIn) -> None:
    page = knowledge(sign_in("rob"))
    choose(page, "logs")
    page.get_by_label("Filter documents").fill("log/07")
    expect(page.locator("#kn-table tbody tr")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Log of day 7")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#kn-document .pages")).to_contain_text("The helmsman kept the course.")
    expect(page.locator("#kn-document header")).to_contain_text("log/07")
    page.keyboard.press("Escape")
    expect(page.locator("#kn-document .hint")).to_contain_text("Choose a document")


def test_a_document_is_deleted_only_after_it_was_confirmed(sign_in: SignIn, server: Served) -> None:
    with server.client("dora") as dora:
        dora.post("/api/ai/documents", json={"collection": "spare", "documents": [{"id": "only", "text": "gone soon"}]})
        page = knowledge(sign_in("dora"))
        choose(page, "spare")
        page.get_by_role("button", name="Delete only").click()
        expect(page.get_by_role("dialog")).to_contain_text("cannot be undone")
        expect(page.get_by_role("button", name="Cancel")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert dora.get("/api/ai/documents/only?collection=spare").status_code == 200
        page.get_by_role("button", name="Delete only").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        expect(page.locator("#kn-collections")).not_to_contain_text("spare")
        expect(page.get_by_role("dialog")).to_have_count(0)
        assert dora.get("/api/ai/documents/only?collection=spare").status_code == 404


def test_who_may_only_read_deletes_nothing_with_a_forged_event(sign_in: SignIn, server: Served) -> None:
    page = knowledge(sign_in("rob"))
    choose(page, "logs")
    expect(page.get_by_role("button", name=re.compile("^Delete"))).to_have_count(0)
    page.evaluate(
        """() => {
        const hit = document.createElement("button");
        hit.dataset.act = "remove"; hit.dataset.document = "log/00";
        document.querySelector("#kn-sheet .html-container > div").append(hit);
        hit.click();
        }"""
    )
    expect(page.locator("#kn-facts .notice")).to_contain_text("Not allowed")
    with server.client("dora") as dora:
        assert dora.get("/api/ai/documents/log/00?collection=logs").status_code == 200


def test_a_key_for_neither_chat_nor_documents_sees_no_collection(sign_in: SignIn) -> None:
    page = knowledge(sign_in("ida"))
    expect(page.locator("#kn-facts .notice")).to_contain_text("Not allowed")
    expect(page.locator("#knowledge")).not_to_contain_text("handbook")


def test_another_tenant_sees_the_handbook_alone(sign_in: SignIn) -> None:
    page = knowledge(sign_in("bob"))
    expect(page.locator("#kn-collections [data-collection=handbook]")).to_be_visible()
    expect(page.locator("#knowledge")).not_to_contain_text("logs")


def test_attacks_in_ids_titles_and_texts_are_shown_as_text(sign_in: SignIn) -> None:
    page = knowledge(sign_in("dora"))
    choose(page, "odd")
    page.locator("#kn-table .name").click()
    expect(page.locator("#kn-document .pages")).to_contain_text("onerror")
    page.get_by_role("button", name=re.compile("^Delete")).click()
    expect(page.get_by_role("dialog")).to_contain_text("onerror")
    assert page.locator("img[src='x']").count() == 0
    assert page.evaluate("window.stolen") is None


def searching(page: Page, query: str) -> None:
    page.locator("#kn-view label", has_text="Search").click()
    page.get_by_label("Query").fill(query)
    page.keyboard.press("Enter")
    expect(page.locator(".candidates")).to_be_visible()


def test_a_search_shows_every_candidate_with_the_scores_of_both_legs_and_why_it_is_not_shown(sign_in: SignIn) -> None:
    page = knowledge(sign_in("rob"))
    choose(page, "logs")
    searching(page, "Which course did the helmsman keep?")
    expect(page.locator(".candidates .name").first).to_have_text("Log of day 7")
    expect(page.locator(".candidates tr.shown")).to_have_count(6)
    expect(page.locator(".candidates tbody tr")).to_have_count(30)
    first, last = page.locator(".candidates tbody tr").first, page.locator(".candidates tbody tr").last
    expect(first.locator("td.number")).to_have_text(
        [re.compile(r"^0\.\d{3}#1$"), re.compile(r"#1$"), re.compile(r"#1$")]
    )
    expect(last.locator(".why")).to_contain_text("the last of 6 shown has")
    expect(page.locator(".told")).to_contain_text(re.compile(r"logs@[\d.]+.*embed .* ms.*legs .* ms"))
    page.get_by_label("Mode").last.select_option("words")
    page.get_by_label("Query").press("Enter")
    expect(page.locator(".candidates .name").first).to_have_text("Log of day 7")
    expect(page.locator(".candidates .why")).to_have_count(0)


def test_a_candidate_opens_its_passage_in_its_document(sign_in: SignIn) -> None:
    page = knowledge(sign_in("rob"))
    choose(page, "handbook")
    searching(page, "Which states can an approval have?")
    text = page.locator(".candidates .text").nth(1).inner_text()
    page.locator(".candidates .name").nth(1).click()
    expect(page.locator("#kn-document mark").first).to_be_in_viewport()
    marked = "".join(page.locator("#kn-document mark").all_inner_texts())
    assert "".join(marked.split())[:20] in "".join(text.split())


def test_a_filter_is_chosen_from_what_the_documents_say_of_themselves(sign_in: SignIn) -> None:
    page = knowledge(sign_in("rob"))
    choose(page, "logs")
    page.locator("#kn-view label", has_text="Search").click()
    page.locator(".filter summary").click()
    page.get_by_label("Field 1").select_option("day")
    page.get_by_label("Comparison 1").select_option("gte")
    page.get_by_label("Value 1").fill("27")
    searching(page, "wind")
    expect(page.locator(".candidates tbody tr")).to_have_count(3)
    page.get_by_label("Value 1").fill("99")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator("#kn-found .hint")).to_contain_text("Nothing passes the filter")


def test_files_are_uploaded_one_by_one_and_each_says_what_became_of_it(
    sign_in: SignIn, server: Served, tmp_path: Path
) -> None:
    for name, content in {"tide.md": b"# Tide\n\nHigh water.", "rope.txt": b"A rope.", "empty.txt": b""}.items():
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / name for name in ("tide.md", "empty.txt", "rope.txt")]
    page = knowledge(sign_in("dora", refusals=True))
    choose(page, "logs")
    page.get_by_role("button", name="Upload…").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Collection").fill("pier")
    dialog.get_by_label("Files").set_input_files(files)
    expect(dialog.locator("li .pill")).to_have_text(["added", "failed", "added"])
    expect(dialog.locator("li .reason").nth(1)).to_contain_text("empty")
    expect(dialog.get_by_role("status")).to_have_text("2 added, 1 failed")
    (tmp_path / "rope.txt").write_bytes(b"Another rope.")
    dialog.get_by_label("Files").set_input_files([files[0], files[2]])
    expect(dialog.locator("li .pill")).to_have_text(["unchanged", "replaced"])
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(page.get_by_role("button", name="Upload…")).to_be_focused()
    expect(page.locator("#kn-facts h1")).to_have_text("pier")
    expect(page.locator("#kn-table tbody tr")).to_have_count(2)
    with server.client("dora") as dora:
        for document_id in ("tide.md", "rope.txt"):
            assert dora.delete(f"/api/ai/documents/{document_id}?collection=pier").status_code == 204


def test_who_may_only_read_is_offered_no_upload(sign_in: SignIn) -> None:
    page = knowledge(sign_in("rob"))
    expect(page.get_by_role("button", name="Upload…")).to_have_count(0)


def test_nothing_of_the_knowledge_tab_is_cut_off_in_either_mode_and_any_size(sign_in: SignIn, pictures: Path) -> None:
    page = knowledge(sign_in("dora"))
    choose(page, "logs")
    searching(page, "wind")
    for width, height in ((1440, 900), (1024, 768), (390, 844)):
        page.set_viewport_size(ViewportSize(width=width, height=height))
        for mode in ("light", "dark"):
            page.screenshot(path=pictures / f"knowledge-{mode}-{width}.png")
            page.locator("#theme").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate("document.documentElement.scrollHeight") <= height
        for box in ("#kn-main", "#kn-ask", "#kn-shelf"):
            assert page.locator(box).evaluate("box => box.scrollWidth <= box.clientWidth"), box
