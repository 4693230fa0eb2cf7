"""The Documents view of the Knowledge tab: a page of a collection's documents, one of them opened or deleted."""

from typing import Any, Final

import gradio as gr
from markupsafe import Markup

from app import knowledge
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.knowledge_groups import drawn_groups, named
from app.console.knowledge_view import begin, drawn_document, kind
from app.console.panel import EMPTY, panel, said
from app.console.reader import principal_of
from app.console.runs import Trail
from app.console.sure import sorry
from app.console.view import draw
from app.records import Principal
from app.services.store.records import DocumentRecord
from app.workbench import Workbench
from graphs.errors import PilothouseError

PAGE_SIZE: Final = 25


class DocumentsPane:
    """Components and handlers of the view; made inside the tab."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Column(elem_id="kn-documents", min_width=0):
            self._table = panel(acts=("read", "ask"), elem_id="kn-table")
            with gr.Row(elem_id="kn-pager", elem_classes="pager"):
                self._newer = gr.Button("Newer", size="sm", interactive=False)
                self._older = gr.Button("Older", size="sm", interactive=False)
        self.trail = gr.State(Trail())

    def listen(self, collection: gr.State, text: gr.Textbox, beside: list[Any], sheet: gr.HTML) -> None:
        """`beside` are the panel in which a document is opened, and the job that is not shown there from then on."""
        shown = [self.trail, collection, text]
        text.change(self._first, shown, self.page, trigger_mode="always_last", **PRIVATE)
        self._older.click(self._turn_on, shown, self.page, **PRIVATE)
        self._newer.click(self._turn_back, shown, self.page, **PRIVATE)
        self._table.read(self._read, [collection], beside, **PRIVATE)
        beside[0].part(self._read, [collection], beside, **PRIVATE)
        self._table.ask(self._ask, [collection], [sheet], **PRIVATE)
        beside[0].regroup(self._ask_groups, [collection], [sheet], **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `turned_to` updates."""
        return [self._table, self._newer, self._older, self.trail]

    async def turned_to(self, who: Principal, turned: tuple[str | None, ...], collection: str, text: str) -> Update:
        """The page behind the cursors, of the documents with `text` in title or id; or why there is none."""
        found: list[DocumentRecord] = []
        after: str | None = None
        notice: Advice | None = None
        wanted = text.strip()
        try:
            page = await knowledge.documents(self._bench, who, collection, wanted, PAGE_SIZE, turned[-1])
            found, after = page.items, page.next_cursor
        except PilothouseError as error:
            notice = advice_on(error)
        drawn = draw(
            "documents",
            documents=[(record, kind(record.media_type)) for record in found],
            writable=knowledge.may_write(who, collection),
            filtered=bool(wanted),
            notice=notice,
        )
        return self.updated(drawn, turned, after)

    def updated(self, drawn: Markup, turned: tuple[str | None, ...] = (None,), after: str | None = None) -> Update:
        return {
            self._table: drawn,
            self._newer: gr.update(interactive=len(turned) > 1),
            self._older: gr.update(interactive=after is not None),
            self.trail: Trail(turned, after),
        }

    async def _first(self, request: gr.Request, trail: Trail, collection: str, text: str) -> Update:
        return await self.turned_to(principal_of(request), (None,), collection, text)

    async def _turn_on(self, request: gr.Request, trail: Trail, collection: str, text: str) -> Update:
        return await self.turned_to(principal_of(request), trail.older, collection, text)

    async def _turn_back(self, request: gr.Request, trail: Trail, collection: str, text: str) -> Update:
        return await self.turned_to(principal_of(request), trail.newer, collection, text)

    async def _read(self, collection: str, event: gr.EventData, request: gr.Request) -> tuple[Markup, str]:
        who = principal_of(request)
        try:
            record, text = await knowledge.document(self._bench, who, collection, said(event, "document"))
        except PilothouseError as error:
            return draw("unread", notice=advice_on(error)), ""
        place, writable = begin(said(event, "at"), text), knowledge.may_write(who, collection)
        return drawn_document(record, text, at=place, writable=writable), ""

    async def regroup(self, who: Principal, collection: str, document_id: str, written: str) -> tuple[Markup, Markup]:
        """The sheet and what is opened beside it afterwards. Raises what opening the document raises."""
        notice: Advice | None = None
        try:
            await knowledge.regroup(self._bench, who, collection, document_id, named(written))
        except PilothouseError as error:
            notice = advice_on(error)
        record, text = await knowledge.document(self._bench, who, collection, document_id)
        sheet = EMPTY if notice is None else drawn_groups(record, who, written=written, notice=notice)
        return sheet, drawn_document(record, text, writable=knowledge.may_write(who, collection))

    async def _ask_groups(self, collection: str, event: gr.EventData, request: gr.Request) -> Markup:
        who = principal_of(request)
        try:
            record, _ = await knowledge.document(self._bench, who, collection, said(event, "document"))
        except PilothouseError as error:
            return sorry(advice_on(error))
        return drawn_groups(record, who, written=", ".join(record.allow_groups))

    async def _ask(self, collection: str, event: gr.EventData, request: gr.Request) -> Markup:
        who = principal_of(request)
        try:
            record, _ = await knowledge.document(self._bench, who, collection, said(event, "document"))
        except PilothouseError as error:
            return draw("removing", record=None, notice=advice_on(error))
        return draw("removing", record=record, notice=None)
