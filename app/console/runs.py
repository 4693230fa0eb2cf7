"""The Runs tab: every run of the tenant that the caller may see, and one of them opened into its stations."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, get_args

import gradio as gr
from markupsafe import Markup

from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.panel import EMPTY, panel, said
from app.console.reader import Reader, principal_of
from app.console.view import draw, usd
from app.console.waterfall import waterfall
from app.records import Principal, RunStatus
from app.services.store.records import RunFilter, RunRecord
from app.workbench import Workbench
from graphs.errors import PilothouseError

PAGE_SIZE: Final = 25
SINCE: Final = [("Any time", 0), ("Last hour", 1), ("Last day", 24), ("Last week", 168)]
MODES: Final = [("All", ""), ("Chat", "chat"), ("RAG", "rag"), ("Agent", "agent")]
STATUSES: Final = [("Any status", ""), *((status.title(), status) for status in get_args(RunStatus))]


class Trail(NamedTuple):
    """Where in the list a browser is: the cursors of the pages it has turned to, and that of the next one."""

    turned: tuple[str | None, ...] = (None,)
    next: str | None = None

    @property
    def older(self) -> tuple[str | None, ...]:
        return (*self.turned, self.next)

    @property
    def newer(self) -> tuple[str | None, ...]:
        return self.turned[:-1] or (None,)


class RunsTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench, reader: Reader) -> None:
        self._bench, self._reader = bench, reader
        with gr.Row(elem_id="runs"):
            with gr.Column(elem_id="list", min_width=0):
                with gr.Row(elem_id="filters"):
                    self.text = gr.Textbox(
                        label="Search",
                        value="",
                        placeholder="Search questions and answers",
                        container=False,
                        elem_id="search",
                    )
                    self.mode = gr.Radio(MODES, value="", label="Mode", container=False, elem_id="runs-mode")
                    self.status = gr.Dropdown(STATUSES, value="", label="Status", container=False, elem_id="status")
                    self.model = gr.Dropdown(
                        [("Any model", "")], value="", label="Model", container=False, elem_id="runs-model"
                    )
                    self.since = gr.Dropdown(SINCE, value=0, label="Since", container=False, elem_id="since")
                self.table = panel(acts=("inspect",), elem_id="table")
                with gr.Row(elem_id="pager"):
                    self.newer = gr.Button("Newer", size="sm", interactive=False)
                    self.older = gr.Button("Older", size="sm", interactive=False)
            with gr.Column(elem_id="detail", min_width=0):
                self.detail = panel(draw("run", run=None, notice=None), acts=("cite",), elem_id="run")
                self.document = panel(acts=("sources",), elem_id="run-document")
        self.trail = gr.State(Trail())
        self.selected = gr.State("")
        self.filters = [self.text, self.mode, self.status, self.model, self.since, self.selected]

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        shown = [self.table, self.newer, self.older, self.trail]
        changes = [item.change for item in (self.text, self.mode, self.status, self.model, self.since)]
        gr.on(changes, self._first, self.filters, shown, trigger_mode="always_last", **PRIVATE)
        self.older.click(self._older, [self.trail, *self.filters], shown, **PRIVATE)
        self.newer.click(self._newer, [self.trail, *self.filters], shown, **PRIVATE)
        self.table.inspect(self._inspect, None, [self.detail, self.document, self.selected], **PRIVATE)
        self.detail.cite(self._cite, None, [self.document], **PRIVATE)
        self.document.sources(lambda: EMPTY, None, [self.document], **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` and `opened` may update."""
        return [
            self.table,
            self.newer,
            self.older,
            self.trail,
            self.detail,
            self.document,
            self.selected,
            self.model,
        ]

    async def listed(self, request: gr.Request, *chosen: Any) -> Update:
        """The newest runs that fit the filters; for when the tab comes to the front."""
        models = [("Any model", ""), *((info.name, info.name) for info in self._bench.gateway.models)]
        return {**await self._first(request, *chosen), self.model: gr.update(choices=models)}

    async def opened(self, who: Principal, run_id: str) -> Update:
        """One run with its stations, or why it cannot be shown."""
        return {self.detail: await self._drawn(who, run_id), self.document: EMPTY, self.selected: run_id}

    async def _first(self, request: gr.Request, *chosen: Any) -> Update:
        return await self._turn_to(principal_of(request), (None,), *chosen)

    async def _older(self, request: gr.Request, trail: Trail, *chosen: Any) -> Update:
        return await self._turn_to(principal_of(request), trail.older, *chosen)

    async def _newer(self, request: gr.Request, trail: Trail, *chosen: Any) -> Update:
        return await self._turn_to(principal_of(request), trail.newer, *chosen)

    async def _turn_to(self, who: Principal, turned: tuple[str | None, ...], *chosen: Any) -> Update:
        *filters, selected = chosen
        notice: Advice | None = None
        runs: list[RunRecord] = []
        after: str | None = None
        wanted = _filter(*filters)
        user = None if who.may("runs") else who.user_id
        try:
            page = await self._bench.store.runs.list(who.tenant_id, user, wanted, PAGE_SIZE, turned[-1])
            runs, after = page.items, page.next_cursor
        except PilothouseError as error:
            notice = advice_on(error)
        return {
            self.table: draw("runs", runs=runs, current=selected, notice=notice, filtered=wanted != RunFilter()),
            self.newer: gr.update(interactive=len(turned) > 1),
            self.older: gr.update(interactive=after is not None),
            self.trail: Trail(turned, after),
        }

    async def _inspect(self, event: gr.EventData, request: gr.Request) -> Update:
        return await self.opened(principal_of(request), said(event, "run"))

    async def _cite(self, event: gr.EventData, request: gr.Request) -> Markup:
        return await self._reader.passage(principal_of(request), said(event, "run"), number=said(event, "number"))

    async def _drawn(self, who: Principal, run_id: str) -> Markup:
        try:
            run = await self._reader.run(who, run_id)
            turn = await self._reader.turn(who, run)
            spans = await self._bench.store.runs.spans(run.run_id, who.tenant_id)
        except PilothouseError as error:
            return draw("run", run=None, notice=advice_on(error))
        return draw("run", run=run, notice=None, turn=turn, fall=waterfall(spans), facts=_facts(run))


def _filter(text: str, mode: str, status: str, model: str, since_hours: int) -> RunFilter:
    since = datetime.now(UTC) - timedelta(hours=since_hours) if since_hours else None
    return RunFilter(
        text=text.strip() or None,
        mode=mode or None,  # type: ignore[arg-type]  # the radio offers modes only; the store compares, no more
        status=status or None,  # type: ignore[arg-type]  # likewise
        model=model or None,
        since=since,
    )


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    """What the answer was made with and from, for whoever compares two runs."""
    tokens = f"{run.input_tokens:,} in, {run.output_tokens:,} out" + (" (estimated)" if run.usage_estimated else "")
    return [
        ("Model", f"{run.model} · {run.model_version}" if run.model else ""),
        ("Provider", run.provider),
        ("Prompt", run.prompt_version),
        ("Graph", run.graph_fingerprint),
        ("Index", run.index_version),
        ("Embedder", run.embedder),
        ("Validation", run.validation),
        ("Tokens", tokens),
        ("Cost", usd(run.cost_usd_micros)),
        ("Chunks read", str(len(run.retrieved_chunk_ids) or "")),
        ("Asked by", f"{run.tenant_id} / {run.user_id}"),
        ("Through", run.feature),
        ("Conversation", run.conversation_id or ""),
    ]
