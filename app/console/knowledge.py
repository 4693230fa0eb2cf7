"""The Knowledge tab: collections, their documents, one of them opened, and a search with every score."""

from typing import Any, Final

import gradio as gr
from markupsafe import Markup

from app import knowledge
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.knowledge_search import CONDITIONS, OPERATORS, asked, rows, shown
from app.console.knowledge_view import begin, drawn_document, drawn_found, kind
from app.console.panel import EMPTY, panel, said
from app.console.reader import principal_of
from app.console.runs import Trail
from app.console.view import draw
from app.knowledge import Collection
from app.names import HANDBOOK
from app.records import Principal
from app.services.store.records import DocumentRecord
from app.workbench import Workbench
from graphs.errors import Missing, PilothouseError
from graphs.types import Passage

PAGE_SIZE: Final = 25
VALUES_OFFERED: Final = 200
FORM: Final = (
    "query",
    "mode",
    "k",
    "rerank",
    "diversity",
    *(f"{part}{number}" for number in range(CONDITIONS) for part in ("field", "operator", "value")),
)
VIEWS: Final = [("Documents", "documents"), ("Search", "search")]


class KnowledgeTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Row(elem_id="knowledge"):
            with gr.Column(elem_id="kn-shelf", min_width=0):
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
                    self.upload = panel(acts=("uploaded",), elem_id="kn-upload")
                with gr.Column(elem_id="kn-documents", min_width=0):
                    self.table = panel(acts=("read", "ask"), elem_id="kn-table")
                    with gr.Row(elem_id="kn-pager", elem_classes="pager"):
                        self.newer = gr.Button("Newer", size="sm", interactive=False)
                        self.older = gr.Button("Older", size="sm", interactive=False)
                with gr.Column(elem_id="kn-search", min_width=0):
                    self.form = panel(acts=("search",), elem_id="kn-ask")
                    self.found = panel(_nothing_asked(), acts=("passage",), elem_id="kn-found")
            with gr.Column(elem_id="kn-beside", min_width=0):
                self.document = panel(draw("unread", notice=None), acts=("close", "part"), elem_id="kn-document")
            self.sheet = panel(acts=("remove", "cancel"), elem_id="kn-sheet")
        self.collection = gr.State("")
        self.trail = gr.State(Trail())
        self.passages = gr.State({})
        self.chosen = [self.collection, self.text]

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        listing = [self.table, self.newer, self.older, self.trail]
        self.shelf.choose(self._choose, None, [*self.page, self.document, self.text, self.found], **PRIVATE)
        self.upload.uploaded(self._uploaded, [self.text], self.page, **PRIVATE)
        self.form.search(self._search, [self.collection], [self.found, self.passages], **PRIVATE)
        self.found.passage(self._passage, [self.passages], [self.document], **PRIVATE)
        self.text.change(self._first, self.chosen, listing, trigger_mode="always_last", **PRIVATE)
        self.older.click(self._older, [self.trail, *self.chosen], listing, **PRIVATE)
        self.newer.click(self._newer, [self.trail, *self.chosen], listing, **PRIVATE)
        self.table.read(self._read, [self.collection], [self.document], **PRIVATE)
        self.document.part(self._read, [self.collection], [self.document], **PRIVATE)
        self.document.close(lambda: draw("unread", notice=None), None, [self.document], **PRIVATE)
        self.table.ask(self._ask, [self.collection], [self.sheet], **PRIVATE)
        self.sheet.cancel(lambda: EMPTY, None, [self.sheet], **PRIVATE)
        self.sheet.remove(self._remove, self.chosen, [self.sheet, self.document, *self.page], **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` may update."""
        return [
            self.shelf,
            self.facts,
            self.table,
            self.newer,
            self.older,
            self.trail,
            self.collection,
            self.form,
            self.upload,
        ]

    async def listed(self, request: gr.Request, collection: str, text: str) -> Update:
        """Everything as it is now; for when the tab comes to the front."""
        return await self._drawn(principal_of(request), collection, text)

    async def _drawn(self, who: Principal, collection: str, text: str, notice: Advice | None = None) -> Update:
        try:
            held = await knowledge.collections(self._bench, who)
            names = [item.name for item in held]
            name = collection if collection in names else names[0] if names else HANDBOOK
            form = await self._form(who, name)
        except PilothouseError as error:
            return {
                self.shelf: EMPTY,
                self.facts: draw("collection", collection=None, notice=advice_on(error)),
                self.form: EMPTY,
                self.upload: EMPTY,
                **_turned(self, EMPTY, (None,), None),
            }
        chosen = next((item for item in held if item.name == name), None)
        return {
            self.shelf: draw("collections", collections=held, current=name, writer=who.may("documents")),
            self.facts: await self._facts(who, chosen, notice),
            self.collection: name,
            self.form: form,
            self.upload: draw(
                "upload",
                writer=who.may("documents"),
                collection=name if knowledge.may_write(who, name) else "",
                names=[item.name for item in held if not item.shared],
                limit_bytes=self._bench.settings.max_upload_bytes,
            ),
            **await self._turn_to(who, (None,), name, text),
        }

    async def _facts(self, who: Principal, chosen: Collection | None, notice: Advice | None) -> Markup:
        if chosen is None:
            return draw("collection", collection=None, notice=notice)
        index = await knowledge.index_of(self._bench, who, chosen.name)
        trouble = None if index.trouble is None else advice_on(index.trouble)
        return draw("collection", collection=chosen, index=index, notice=notice or trouble)

    async def _choose(self, event: gr.EventData, request: gr.Request) -> Update:
        update = await self._drawn(principal_of(request), said(event, "collection"), "")
        return {
            **update,
            self.text: "",
            self.document: draw("unread", notice=None),
            self.found: _nothing_asked(),
        }

    async def _uploaded(self, text: str, event: gr.EventData, request: gr.Request) -> Update:
        return await self._drawn(principal_of(request), said(event, "collection"), text)

    # Documents

    async def _first(self, request: gr.Request, collection: str, text: str) -> Update:
        return await self._turn_to(principal_of(request), (None,), collection, text)

    async def _older(self, request: gr.Request, trail: Trail, collection: str, text: str) -> Update:
        return await self._turn_to(principal_of(request), (*trail.turned, trail.next), collection, text)

    async def _newer(self, request: gr.Request, trail: Trail, collection: str, text: str) -> Update:
        return await self._turn_to(principal_of(request), trail.turned[:-1] or (None,), collection, text)

    async def _turn_to(self, who: Principal, turned: tuple[str | None, ...], collection: str, text: str) -> Update:
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
        return _turned(self, drawn, turned, after)

    async def _read(self, collection: str, event: gr.EventData, request: gr.Request) -> Markup:
        try:
            record, text = await knowledge.document(
                self._bench, principal_of(request), collection, said(event, "document")
            )
        except PilothouseError as error:
            return draw("unread", notice=advice_on(error))
        return drawn_document(record, text, at=begin(said(event, "at"), text))

    # Searching

    async def _form(self, who: Principal, collection: str) -> Markup:
        fields = await knowledge.fields(self._bench, who, collection)
        values = dict.fromkeys(shown(value) for held in fields.values() for value in held)
        return draw(
            "search_form",
            collection=collection,
            fields=list(fields),
            values=list(values)[:VALUES_OFFERED],
            operators=OPERATORS,
            conditions=CONDITIONS,
        )

    async def _search(self, collection: str, event: gr.EventData, request: gr.Request) -> Update:
        who, form = principal_of(request), {name: said(event, name) for name in FORM}
        try:
            query, mode = asked(form, await knowledge.fields(self._bench, who, collection))
            found = await knowledge.search(self._bench, who, collection, query)
        except PilothouseError as error:
            return {self.found: draw("candidates", found=None, rows=(), mode="", notice=advice_on(error))}
        listed = rows(found, mode)
        return {
            self.found: draw("candidates", found=found, rows=listed, mode=mode, notice=None),
            self.passages: {row.candidate.passage.chunk_id: row.candidate.passage for row in listed},
        }

    async def _passage(self, passages: dict[str, Passage], event: gr.EventData, request: gr.Request) -> Markup:
        try:
            passage = passages.get(said(event, "chunk"))
            if passage is None:
                raise Missing("no such passage in this search")
            record, text = await knowledge.document(
                self._bench, principal_of(request), passage.collection, passage.document_id
            )
        except PilothouseError as error:
            return draw("unread", notice=advice_on(error))
        return drawn_found(record, text, passage)

    # Deleting

    async def _ask(self, collection: str, event: gr.EventData, request: gr.Request) -> Markup:
        who = principal_of(request)
        try:
            record, _ = await knowledge.document(self._bench, who, collection, said(event, "document"))
        except PilothouseError as error:
            return draw("removing", record=None, notice=advice_on(error))
        return draw("removing", record=record, notice=None)

    async def _remove(self, collection: str, text: str, event: gr.EventData, request: gr.Request) -> Update:
        who, notice = principal_of(request), None
        try:
            await knowledge.remove(self._bench, who, collection, said(event, "document"))
        except PilothouseError as error:
            notice = advice_on(error)
        update = await self._drawn(who, collection, text, notice)
        return {**update, self.sheet: EMPTY, self.document: draw("unread", notice=None)}


def _nothing_asked() -> Markup:
    return draw("candidates", found=None, rows=(), mode="", notice=None)


def _turned(tab: KnowledgeTab, drawn: Markup, turned: tuple[str | None, ...], after: str | None) -> Update:
    return {
        tab.table: drawn,
        tab.newer: gr.update(interactive=len(turned) > 1),
        tab.older: gr.update(interactive=after is not None),
        tab.trail: Trail(turned, after),
    }
