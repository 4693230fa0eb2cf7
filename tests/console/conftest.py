"""One server for the console's tests, and a browser whose every request and complaint is looked at."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, ViewportSize, sync_playwright

from app.services.retrieval.embedder import MiniLmEmbedder
from tests.console.served import Served, served

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
DESKTOP = ViewportSize(width=1440, height=900)
PATIENCE_MS = 60_000  # of a browser on a machine that is busy with other tests

SignIn = Callable[..., Page]


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory, embedder: MiniLmEmbedder) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("console"), embedder) as up:
        yield up


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures")


# For a module and not for the session: while Playwright's synchronous API is open, no other event loop may run here.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no browser: install Debian's chromium to run the console's tests")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def sign_in(browser: Browser, server: Served) -> Iterator[SignIn]:
    """`sign_in("ann")` gives a page of hers; afterwards, nothing may have gone elsewhere and nothing have failed."""
    complaints: list[str] = []
    opened = []

    def enter(
        who: str = "ann",
        *,
        path: str = "/console/",
        size: ViewportSize = DESKTOP,
        dark: bool = False,
        refusals: bool = False,
    ) -> Page:
        """With `refusals`, answers of 400 and more, which a browser complains of by itself, are no failure."""

        def complained(message: ConsoleMessage) -> None:
            if message.type == "error" and not (refusals and message.text.startswith("Failed to load resource")):
                complaints.append(message.text)

        context = browser.new_context(viewport=size, color_scheme="dark" if dark else "light")
        opened.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", complained)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: complaints.extend(_outside(request.url, server.url)))
        context.add_cookies([_session(server, who)])
        page.goto(server.url + path)
        page.wait_for_selector("#header .identity b:not(:empty)")
        return page

    yield enter
    for context in opened:
        context.close()
    assert complaints == []


def _outside(url: str, ours: str) -> list[str]:
    return [] if url.startswith((ours, "data:", "blob:")) else [f"request to {url}"]


def _session(server: Served, who: str) -> dict[str, str]:  # type: ignore[type-arg]
    with server.client(None) as client:
        client.post("/login", data={"key": server.keys[who]})
        name, value = next(iter(client.cookies.items()))
    return {"name": name, "value": value, "url": server.url}
