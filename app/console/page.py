"""The page: header, tabs, and what happens when it loads or its address names a run."""

from typing import Any, Final
from urllib.parse import quote

import gradio as gr

from app.console.chat import PRIVATE, ChatTab, Update
from app.console.health import HealthTab
from app.console.inbox import InboxTab
from app.console.jobs import JobsTab
from app.console.knowledge import KnowledgeTab
from app.console.panel import panel, said
from app.console.reader import Reader, principal_of
from app.console.runs import RunsTab
from app.console.theme import HarborTheme, variables
from app.console.usage import UsageTab
from app.console.view import FOLDER, draw
from app.workbench import Workbench

TITLE: Final = "Pilothouse"
KNOWLEDGE, APPROVALS, JOBS, USAGE, HEALTH = "Knowledge", "Approvals", "Jobs", "Usage", "Health"
ASSETS: Final = FOLDER / "assets"


def build_page(bench: Workbench) -> gr.Blocks:
    """All tabs, bound. Needs a running event loop only once it is mounted."""
    reader = Reader(bench.store)
    with gr.Blocks(title=TITLE, analytics_enabled=False, fill_width=True) as blocks:
        header = panel(draw("header", tenant_id="", user_id=""), elem_id="header")
        with gr.Tabs(elem_id="tabs") as tabs:
            with gr.Tab("Chat", id="chat"):
                chat = ChatTab(bench, reader)
            with gr.Tab(KNOWLEDGE, id="knowledge") as shelves:
                known = KnowledgeTab(bench)
            with gr.Tab("Runs", id="runs") as front:
                runs = RunsTab(bench, reader)
            with gr.Tab(APPROVALS, id="approvals") as waiting:
                inbox = InboxTab(bench, reader)
            with gr.Tab(JOBS, id="jobs") as work:
                jobs = JobsTab(bench)
            with gr.Tab(USAGE, id="usage") as costs:
                usage = UsageTab(bench)
            with gr.Tab(HEALTH, id="health") as signs:
                state = HealthTab(bench)
        for tab in (chat, known, runs, inbox, jobs, usage, state):
            tab.listen()

        timers = {
            KNOWLEDGE: known.timer,
            APPROVALS: inbox.timer,
            JOBS: jobs.timer,
            USAGE: usage.timer,
            HEALTH: state.timer,
        }

        def paced(shown: str) -> Update:
            return {timer: gr.Timer(active=name == shown) for name, timer in timers.items()}

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
            opened = await runs.opened(principal_of(request), said(event, "run"))
            return {tabs: gr.Tabs(selected="runs"), **paced(""), **opened}

        async def pace(event: gr.SelectData) -> Update:
            """Only the tab that is looked at asks again and again."""
            return paced(str(event.value))

        blocks.load(load, runs.filters, [header, tabs, *chat.page, *runs.page], **PRIVATE)
        shelves.select(known.listed, known.chosen, known.page, **PRIVATE)
        front.select(runs.listed, runs.filters, runs.page, **PRIVATE)
        waiting.select(inbox.listed, inbox.chosen, inbox.page, **PRIVATE)
        work.select(jobs.listed, jobs.chosen, jobs.page, **PRIVATE)
        costs.select(usage.listed, usage.chosen, usage.page, **PRIVATE)
        signs.select(state.listed, None, state.page, **PRIVATE)
        tabs.select(pace, None, [*timers.values()], **PRIVATE)
        for shown in (chat.history, usage.board, jobs.detail, inbox.detail):
            shown.inspect(inspect, None, [tabs, *timers.values(), *runs.page], **PRIVATE)
    return blocks


def dress() -> dict[str, Any]:
    """Theme and CSS, as Gradio 6 takes them when a page is mounted."""
    styles = [(ASSETS / name).read_text("utf-8") for name in ("console.css", "knowledge.css", "jobs.css", "inbox.css")]
    return {"theme": HarborTheme(), "css": "".join(styles)}


def head() -> str:
    """What the page needs before Gradio has loaded: its icon, its colours and our script."""
    icon = quote((ASSETS / "icon.svg").read_text("utf-8"))
    script = "".join((ASSETS / name).read_text("utf-8") for name in ("console.js", "knowledge.js"))
    first = f"{variables()}body,gradio-app{{background:var(--ph-bg)!important}}"
    return f'<link rel="icon" href="data:image/svg+xml,{icon}"><style>{first}</style><script>{script}</script>'
