"""The page: header, tabs, and what happens when it loads or its address names a run."""

from typing import Any, Final

import gradio as gr

from app.console.chat import PRIVATE, ChatTab, Update
from app.console.panel import Panel, said
from app.console.reader import Reader, principal_of
from app.console.runs import RunsTab
from app.console.theme import HarborTheme, variables
from app.console.view import FOLDER, draw
from app.workbench import Workbench

TITLE: Final = "Pilothouse"


def build_page(bench: Workbench) -> gr.Blocks:
    """All tabs, bound. Needs a running event loop only once it is mounted."""
    reader = Reader(bench.store)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        header = Panel(draw("header", tenant_id="", user_id=""), elem_id="header")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat = ChatTab(bench, reader)
            with gr.Tab("Runs", id="runs") as front:
                runs = RunsTab(bench, reader)
        chat.listen()
        runs.listen()

        async def load(request: gr.Request, *chosen: Any) -> Update:
            who = principal_of(request)
            update: Update = {header: draw("header", tenant_id=who.tenant_id, user_id=who.user_id)}
            update |= await chat.loaded(request)
            named = str(request.query_params.get("run") or "")
            if named:
                update |= await runs.listed(request, *chosen[:-1], named)
                update |= {tabs: gr.Tabs(selected="runs"), **await runs.opened(who, named)}
            return update

        async def inspect(request: gr.Request, event: gr.EventData) -> Update:
            return {tabs: gr.Tabs(selected="runs"), **await runs.opened(principal_of(request), said(event, "run"))}

        blocks.load(load, runs.filters, [header, tabs, *chat.page, *runs.page], **PRIVATE)
        front.select(runs.listed, runs.filters, runs.page, **PRIVATE)
        chat.history.inspect(inspect, None, [tabs, *runs.page], **PRIVATE)
    return blocks


def dress() -> dict[str, Any]:
    """Theme, CSS and script, as Gradio 6 takes them when a page is mounted."""
    assets = FOLDER / "assets"
    script = (assets / "console.js").read_text("utf-8")
    return {
        "theme": HarborTheme(),
        "css": variables() + (assets / "console.css").read_text("utf-8"),
        "head": f"<script>{script}</script>",
    }
