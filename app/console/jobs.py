"""The Jobs tab: every job of the tenant that the caller may see, and one of them opened, live as long as it runs."""

from typing import Any, Final, get_args

import gradio as gr
from markupsafe import Markup

from app import joblist
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.job_view import KINDS, TONES, drawn_job, title
from app.console.panel import EMPTY, panel, said
from app.console.reader import principal_of
from app.console.runs import Trail
from app.console.sure import sorry, stop_job
from app.console.view import draw
from app.records import Principal
from app.services.jobs.ports import JobState, JobStatus
from app.workbench import Workbench
from graphs.errors import PilothouseError

PAGE_SIZE: Final = 25
REFRESH_S: Final = 1.5
STATUSES: Final = [("Any status", ""), *((status.title(), status) for status in get_args(JobStatus))]


class JobsTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Row(elem_id="jobs", elem_classes="desk"):
            with gr.Column(elem_id="jobs-list", elem_classes="desk-list", min_width=0):
                with gr.Row(elem_id="jobs-filters", elem_classes=["filters", "desk-filters"]):
                    self.kind = gr.Dropdown(
                        [("Any kind", ""), *((word, name) for name, word in KINDS.items())],
                        value="",
                        label="Kind",
                        container=False,
                        elem_id="jobs-kind",
                    )
                    self.status = gr.Dropdown(STATUSES, value="", label="State", container=False, elem_id="jobs-status")
                self.table = panel(acts=("open",), elem_id="jobs-table")
                with gr.Row(elem_id="jobs-pager", elem_classes="pager"):
                    self.newer = gr.Button("Newer", size="sm", interactive=False)
                    self.older = gr.Button("Older", size="sm", interactive=False)
            with gr.Column(elem_id="jobs-detail", elem_classes="desk-detail", min_width=0):
                self.detail = panel(
                    draw("no_job", notice=None), acts=("close", "stop", "again", "inspect"), elem_id="job"
                )
            self.sheet = panel(acts=("off", "cancel"), elem_id="jobs-sheet")
        self.trail = gr.State(Trail())
        self.selected = gr.State("")
        self.timer = gr.Timer(REFRESH_S, active=False)
        self.chosen = [self.trail, self.selected, self.kind, self.status]

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        changes = [item.change for item in (self.kind, self.status)]
        gr.on(changes, self._first, self.chosen, self.page, trigger_mode="always_last", **PRIVATE)
        self.timer.tick(self._tick, self.chosen, self.page, **PRIVATE)
        self.older.click(self._older, self.chosen, self.page, **PRIVATE)
        self.newer.click(self._newer, self.chosen, self.page, **PRIVATE)
        self.table.open(self._open, self.chosen, self.page, **PRIVATE)
        self.detail.close(lambda: (draw("no_job", notice=None), ""), None, [self.detail, self.selected], **PRIVATE)
        self.detail.stop(self._stop, None, [self.sheet], **PRIVATE)
        self.sheet.off(self._off, self.chosen, [self.sheet, *self.page], **PRIVATE)
        self.sheet.cancel(lambda: EMPTY, None, [self.sheet], **PRIVATE)
        self.detail.again(self._again, self.chosen, self.page, **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` may update."""
        return [self.table, self.newer, self.older, self.trail, self.detail, self.selected]

    async def listed(self, request: gr.Request, trail: Trail, selected: str, *filters: str) -> Update:
        """The page of the list that is shown, and the job that is opened, as they are now."""
        return await self._drawn(principal_of(request), trail.turned, selected, *filters)

    async def _tick(self, request: gr.Request, trail: Trail, selected: str, *filters: str) -> Update:
        """The same, and what is chosen stays as it is: it may have changed since this look began."""
        update = await self.listed(request, trail, selected, *filters)
        kept = (self.selected, self.trail) if selected else (self.selected, self.trail, self.detail)
        return {shown: value for shown, value in update.items() if shown not in kept}

    async def _first(self, request: gr.Request, trail: Trail, selected: str, *filters: str) -> Update:
        return await self._drawn(principal_of(request), (None,), selected, *filters)

    async def _older(self, request: gr.Request, trail: Trail, selected: str, *filters: str) -> Update:
        return await self._drawn(principal_of(request), trail.older, selected, *filters)

    async def _newer(self, request: gr.Request, trail: Trail, selected: str, *filters: str) -> Update:
        return await self._drawn(principal_of(request), trail.newer, selected, *filters)

    async def _open(self, event: gr.EventData, request: gr.Request, trail: Trail, _: str, *filters: str) -> Update:
        return await self._drawn(principal_of(request), trail.turned, said(event, "job"), *filters)

    async def _stop(self, event: gr.EventData, request: gr.Request) -> Markup:
        return await asked_to_stop(self._bench, principal_of(request), said(event, "job"))

    async def _off(
        self, event: gr.EventData, request: gr.Request, trail: Trail, selected: str, *filters: str
    ) -> Update:
        who, notice = principal_of(request), None
        try:
            await joblist.cancel(self._bench, who, said(event, "what"))
        except PilothouseError as error:
            notice = advice_on(error)
        return {**await self._drawn(who, trail.turned, selected, *filters, notice=notice), self.sheet: EMPTY}

    async def _again(
        self, event: gr.EventData, request: gr.Request, trail: Trail, selected: str, *filters: str
    ) -> Update:
        """The new job is shown in place of the old one."""
        who, notice = principal_of(request), None
        try:
            selected = (await joblist.again(self._bench, who, said(event, "job"), numbered(event))).job_id
            trail = Trail()
        except PilothouseError as error:
            notice = advice_on(error)
        return await self._drawn(who, trail.turned, selected, *filters, notice=notice)

    async def _drawn(
        self,
        who: Principal,
        turned: tuple[str | None, ...],
        selected: str,
        kind: str,
        status: str,
        *,
        notice: Advice | None = None,
    ) -> Update:
        found: list[JobState] = []
        after: str | None = None
        refused: Advice | None = None
        wanted: JobStatus | None = next((name for name in get_args(JobStatus) if name == status), None)
        try:
            found, after = await joblist.listed(
                self._bench, who, PAGE_SIZE, turned[-1], kind=kind if kind in KINDS else "", status=wanted
            )
        except PilothouseError as error:
            refused = advice_on(error)
        table = draw(
            "jobs",
            jobs=[(job, title(job), TONES[job.status]) for job in found],
            current=selected,
            notice=refused,
            filtered=bool(kind or status),
            kept_days=round(
                self._bench.config.retention.of(who.tenant_id).jobs_days or self._bench.settings.job_retention_days
            ),
        )
        return {
            self.table: table,
            self.newer: gr.update(interactive=len(turned) > 1),
            self.older: gr.update(interactive=after is not None),
            self.trail: Trail(turned, after),
            self.detail: await drawn_detail(self._bench, who, selected, notice=notice),
            self.selected: selected,
        }


async def drawn_detail(bench: Workbench, who: Principal, job_id: str, *, notice: Advice | None = None) -> Markup:
    """A job as it is now, or why it cannot be shown, or that none is chosen."""
    if not job_id:
        return draw("no_job", notice=notice)
    try:
        return drawn_job(await joblist.opened(bench, who, job_id), notice=notice)
    except PilothouseError as error:
        return draw("no_job", notice=advice_on(error))


async def asked_to_stop(bench: Workbench, who: Principal, job_id: str) -> Markup:
    """What will happen to the job, to be confirmed; or why that is not to be had."""
    try:
        return stop_job(job_id, title((await joblist.opened(bench, who, job_id)).job))
    except PilothouseError as error:
        return sorry(advice_on(error))


def numbered(event: gr.EventData) -> list[int] | None:
    """The item that is meant by what the browser sent; None for all."""
    number = said(event, "number")
    return [int(number)] if number.isascii() and number.isdigit() and len(number) < 10 else None
