"""The Knowledge tab: collections, their documents and versions, one of them opened, and the jobs that change them."""

from typing import Any, Final, NamedTuple

import gradio as gr
from markupsafe import Markup

from app import joblist, knowledge
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.job_view import summary
from app.console.jobs import REFRESH_S, asked_to_stop, drawn_detail, numbered
from app.console.knowledge_documents import DocumentsPane
from app.console.knowledge_groups import may_restrict
from app.console.knowledge_playground import Playground, nothing_asked
from app.console.knowledge_rebuild import wished
from app.console.knowledge_versions import VersionsPane
from app.console.panel import EMPTY, panel, said
from app.console.reader import principal_of
from app.console.runs import Trail
from app.console.view import draw
from app.knowledge import Collection
from app.names import HANDBOOK
from app.records import Principal
from app.services.jobs.ports import ENDED, JobState
from app.workbench import Workbench
from graphs.errors import PilothouseError

VIEWS: Final = [("Documents", "documents"), ("Search", "search"), ("Versions", "versions")]

Standing = tuple[tuple[str, str], ...]  # jobs of a collection with their states


class At(NamedTuple):
    """Where in the tab a browser is. `job` is shown beside, if any; `standing` are the jobs as they were last seen."""

    collection: str
    text: str
    view: str
    trail: Trail
    job: str
    standing: Standing


class KnowledgeTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Row(elem_id="knowledge"):
            with gr.Column(elem_id="kn-shelf", min_width=0):
                self.upload = panel(acts=("uploaded",), elem_id="kn-upload")
                self.shelf = panel(acts=("choose",), elem_id="kn-collections")
            with gr.Column(elem_id="kn-main", min_width=0):
                self.facts = panel(elem_id="kn-facts")
                with gr.Row(elem_id="kn-bar"):
                    self.view = gr.Radio(
                        VIEWS,
                        value="documents",
                        label="View",
                        interactive=True,
                        container=False,
                        elem_id="kn-view",
                        elem_classes="segments",
                    )
                    self.text = gr.Textbox(
                        label="Filter documents",
                        value="",
                        placeholder="Filter by title or id",
                        container=False,
                        elem_id="kn-filter",
                    )
                    self.jobs = panel(acts=("open",), elem_id="kn-jobs")
                self.documents = DocumentsPane(bench)
                self.playground = Playground(bench)
                self.versions = VersionsPane(bench)
            with gr.Column(elem_id="kn-beside", min_width=0):
                self.document = panel(
                    _unread(), acts=("close", "part", "regroup", "stop", "again"), elem_id="kn-document"
                )
            self.sheet = panel(
                acts=("remove", "groups", "off", "promote", "back", "rebuild", "cancel"), elem_id="kn-sheet"
            )
        self.collection = gr.State("")
        self.job = gr.State("")
        self.standing = gr.State(())
        self.timer = gr.Timer(REFRESH_S, active=False)
        self.chosen = [self.collection, self.text, self.view, self.documents.trail, self.job, self.standing]

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        page, beside = self.page, [self.document, self.job]
        self.timer.tick(self._tick, self.chosen, page, **PRIVATE)
        self.shelf.choose(self._choose, self.chosen, [*page, self.text, self.playground.found], **PRIVATE)
        self.upload.uploaded(self._uploaded, self.chosen, page, **PRIVATE)
        self.documents.listen(self.collection, self.text, beside, self.sheet)
        self.document.close(lambda: (_unread(), ""), None, beside, **PRIVATE)
        self.sheet.cancel(lambda: EMPTY, None, [self.sheet], **PRIVATE)
        self.sheet.remove(self._remove, self.chosen, [self.sheet, *page], **PRIVATE)
        self.sheet.groups(self._regroup, self.chosen, [self.sheet, *page], **PRIVATE)
        # Jobs
        self.jobs.open(self._open, None, beside, **PRIVATE)
        self.document.stop(self._stop, None, [self.sheet], **PRIVATE)
        self.document.again(self._again, self.chosen, page, **PRIVATE)
        self.sheet.off(self._off, self.chosen, [self.sheet, *page], **PRIVATE)
        # Searching and versions
        self.playground.listen(self.collection, beside)
        self.versions.listen(self.collection, self.sheet)
        self.view.change(self._look, self.chosen, [self.versions.table], **PRIVATE)
        self.sheet.promote(self._promote, self.chosen, [self.sheet, *page], **PRIVATE)
        self.sheet.rebuild(self._rebuild, self.chosen, [self.sheet, *page], **PRIVATE)
        self.sheet.back(self._roll_back, self.chosen, [self.sheet, *page], **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` may update."""
        return [
            self.shelf,
            self.facts,
            *self.documents.page,
            self.collection,
            self.playground.form,
            self.upload,
            self.versions.table,
            self.jobs,
            self.job,
            self.standing,
            self.document,
        ]

    async def listed(self, request: gr.Request, *chosen: Any) -> Update:
        """Everything as it is now; for when the tab comes to the front."""
        return await self._drawn(principal_of(request), At(*chosen))

    async def _drawn(self, who: Principal, at: At, notice: Advice | None = None) -> Update:
        try:
            names = [item.name for item in await knowledge.collections(self._bench, who)]
            name = at.collection if at.collection in names else names[0] if names else HANDBOOK
            at = at if name == at.collection else at._replace(collection=name, trail=Trail())
            jobs = await joblist.watched(self._bench, who, name, at.job)
            # Behind the jobs, as all below: what is drawn holds what was done by those that are noted as ended.
            held = await knowledge.collections(self._bench, who)
            form = await self.playground.drawn_form(who, name)
        except PilothouseError as error:
            return {
                self.shelf: EMPTY,
                self.facts: draw("collection", collection=None, notice=advice_on(error)),
                self.playground.form: EMPTY,
                self.upload: EMPTY,
                self.jobs: EMPTY,
                self.versions.table: EMPTY,
                **self.documents.updated(EMPTY),
            }
        chosen = next((item for item in held if item.name == name), None)
        return {
            self.shelf: draw("collections", collections=held, current=name, writer=who.may("documents")),
            self.facts: await self._facts(who, chosen, notice),
            self.collection: name,
            self.playground.form: form,
            self.upload: draw(
                "upload",
                writer=who.may("documents"),
                collection=name if knowledge.may_write(who, name) else "",
                names=[item.name for item in held if not item.shared],
                limit_bytes=self._bench.settings.max_upload_bytes,
                restricts=may_restrict(who),
                own_groups=sorted(who.groups),
            ),
            **self._summed_up(jobs, at),
            **await self.documents.turned_to(who, at.trail.turned, name, at.text),
            **await self._look_at_versions(who, at),
        }

    async def _facts(self, who: Principal, chosen: Collection | None, notice: Advice | None) -> Markup:
        if chosen is None:
            return draw("collection", collection=None, notice=notice)
        index = await knowledge.index_of(self._bench, who, chosen.name)
        trouble = None if index.trouble is None else advice_on(index.trouble)
        return draw("collection", collection=chosen, index=index, notice=notice or trouble)

    async def _choose(self, event: gr.EventData, request: gr.Request, *chosen: Any) -> Update:
        at = At(*chosen)._replace(collection=said(event, "collection"), text="", trail=Trail(), job="")
        update = await self._drawn(principal_of(request), at)
        return {
            **update,
            self.text: "",
            self.document: _unread(),
            self.job: "",
            self.playground.found: nothing_asked(),
        }

    async def _uploaded(self, event: gr.EventData, request: gr.Request, *chosen: Any) -> Update:
        """What was sent is a job by now, which is shown beside."""
        at = At(*chosen)._replace(collection=said(event, "collection"), job=said(event, "job"))
        return await self._shown(principal_of(request), at)

    # A document, deleted or for others than before

    async def _remove(self, event: gr.EventData, request: gr.Request, *chosen: Any) -> Update:
        who, notice = principal_of(request), None
        at = At(*chosen)
        try:
            await knowledge.remove(self._bench, who, at.collection, said(event, "document"))
        except PilothouseError as error:
            notice = advice_on(error)
        update = await self._drawn(who, at._replace(job=""), notice)
        return {**update, self.sheet: EMPTY, self.document: _unread(), self.job: ""}

    async def _regroup(self, event: gr.EventData, request: gr.Request, *chosen: Any) -> Update:
        who, at = principal_of(request), At(*chosen)
        try:
            sheet, beside = await self.documents.regroup(
                who, at.collection, said(event, "document"), said(event, "groups")
            )
        except PilothouseError as error:
            sheet, beside = EMPTY, draw("unread", notice=advice_on(error))
        return {**await self._drawn(who, at._replace(job="")), self.sheet: sheet, self.document: beside, self.job: ""}

    # Jobs

    async def _tick(self, request: gr.Request, *chosen: Any) -> Update:
        """The jobs as they are now; everything, once one of them has begun or ended."""
        who, at = principal_of(request), At(*chosen)
        try:
            jobs = await joblist.watched(self._bench, who, at.collection, at.job)
        except PilothouseError:
            return {self.jobs: EMPTY}  # the page says already why, or the next look finds the store again
        standing = _standing(jobs)
        if standing != at.standing:
            return await self._shown(who, at._replace(collection=_made(jobs, at)))
        if not any(status in ("queued", "running") for _, status in standing):
            return {self.standing: standing}  # Gradio takes no empty update
        return self._summed_up(jobs, at) | await self._beside(who, at.job)

    def _summed_up(self, watched: list[JobState], at: At) -> Update:
        jobs = [job for job in watched if job.payload.get("collection") == at.collection]
        words, tone, share = summary(jobs)
        return {
            self.jobs: draw(
                "collection_jobs", job_id=jobs[0].job_id if jobs else "", words=words, tone=tone, share=share
            ),
            self.standing: _standing(watched),
        }

    async def _open(self, event: gr.EventData, request: gr.Request) -> Update:
        job_id = said(event, "job")
        return {self.document: await drawn_detail(self._bench, principal_of(request), job_id), self.job: job_id}

    async def _beside(self, who: Principal, job_id: str) -> Update:
        if not job_id:
            return {}
        return {self.document: await drawn_detail(self._bench, who, job_id), self.job: job_id}

    async def _shown(self, who: Principal, at: At, notice: Advice | None = None) -> Update:
        return await self._drawn(who, at, notice) | await self._beside(who, at.job)

    async def _stop(self, event: gr.EventData, request: gr.Request) -> Markup:
        return await asked_to_stop(self._bench, principal_of(request), said(event, "job"))

    async def _off(self, event: gr.EventData, request: gr.Request, *chosen: Any) -> Update:
        who, notice = principal_of(request), None
        try:
            await joblist.cancel(self._bench, who, said(event, "what"))
        except PilothouseError as error:
            notice = advice_on(error)
        return {**await self._shown(who, At(*chosen), notice), self.sheet: EMPTY}

    async def _again(self, event: gr.EventData, request: gr.Request, *chosen: Any) -> Update:
        """The new job is shown in place of the old one."""
        who, at, notice = principal_of(request), At(*chosen), None
        try:
            again = await joblist.again(self._bench, who, said(event, "job"), numbered(event))
            at = at._replace(job=again.job_id)
        except PilothouseError as error:
            notice = advice_on(error)
        return await self._shown(who, at, notice)

    # Versions

    async def _look(self, request: gr.Request, *chosen: Any) -> Update:
        update = await self._look_at_versions(principal_of(request), At(*chosen))
        return update or {self.versions.table: draw("reading")}

    async def _look_at_versions(self, who: Principal, at: At) -> Update:
        """Only while they are looked at: each of them is opened to be counted."""
        if at.view != "versions":
            return {}
        return {self.versions.table: await self.versions.drawn(who, at.collection)}

    async def _promote(self, request: gr.Request, *chosen: Any) -> Update:
        who, at = principal_of(request), At(*chosen)
        table = await self.versions.promote(who, at.collection)
        return {**await self._shown(who, at), self.versions.table: table, self.sheet: EMPTY}

    async def _roll_back(self, request: gr.Request, *chosen: Any) -> Update:
        who, at = principal_of(request), At(*chosen)
        table = await self.versions.roll_back(who, at.collection)
        return {**await self._shown(who, at), self.versions.table: table, self.sheet: EMPTY}

    async def _rebuild(self, event: gr.EventData, request: gr.Request, *chosen: Any) -> Update:
        """The job is shown beside."""
        who, at, notice = principal_of(request), At(*chosen), None
        try:
            chunking, keep = wished(event)
            job = await knowledge.rebuild(self._bench, who, at.collection, chunking, keep=keep)
            at = at._replace(job=job.job_id)
        except PilothouseError as error:
            notice = advice_on(error)
        return {**await self._shown(who, at, notice), self.sheet: EMPTY}


def _unread() -> Markup:
    return draw("unread", notice=None)


def _made(jobs: list[JobState], at: At) -> str:
    """The collection to show: that of the job beside once it has ended, for it may have made it."""
    ended = [job.payload.get("collection") for job in jobs if job.job_id == at.job and job.status in ENDED]
    return str(ended[0]) if ended and ended[0] else at.collection


def _standing(jobs: list[JobState]) -> Standing:
    return tuple((job.job_id, job.status) for job in jobs)
