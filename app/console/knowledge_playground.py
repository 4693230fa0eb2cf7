"""The Search view of the Knowledge tab: a question and every candidate with its scores, as of any version."""

from typing import Any, Final

import gradio as gr
from markupsafe import Markup

from app import knowledge
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.knowledge_search import CONDITIONS, OPERATORS, Row, asked, compared, rows, shown
from app.console.knowledge_view import drawn_found
from app.console.panel import panel, said
from app.console.reader import principal_of
from app.console.view import draw
from app.records import Principal
from app.services.retrieval.look import Found
from app.workbench import Workbench
from graphs.errors import Missing, PilothouseError
from graphs.types import Passage

VALUES_OFFERED: Final = 200
FORM: Final = (
    "query",
    "mode",
    "k",
    "rerank",
    "diversity",
    "asof",
    "against",
    *(f"{part}{number}" for number in range(CONDITIONS) for part in ("field", "operator", "value")),
)


class Playground:
    """Components and handlers of the view; made inside the tab."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        with gr.Column(elem_id="kn-search", min_width=0):
            self.form = panel(acts=("search",), elem_id="kn-ask")
            self.found = panel(nothing_asked(), acts=("passage",), elem_id="kn-found")
        self._passages = gr.State({})

    def listen(self, collection: gr.State, beside: list[Any]) -> None:
        """`beside` are the panel in which a passage is opened, and the job that is not shown there from then on."""
        self.form.search(self._search, [collection], [self.found, self._passages], **PRIVATE)
        self.found.passage(self._passage, [self._passages], beside, **PRIVATE)

    async def drawn_form(self, who: Principal, collection: str) -> Markup:
        """Raises what the store does."""
        fields = await knowledge.fields(self._bench, who, collection)
        values = dict.fromkeys(shown(value) for held in fields.values() for value in held)
        return draw(
            "search_form",
            collection=collection,
            fields=list(fields),
            values=list(values)[:VALUES_OFFERED],
            versions=await knowledge.versions(self._bench, who, collection),
            operators=OPERATORS,
            conditions=CONDITIONS,
        )

    async def _search(self, collection: str, event: gr.EventData, request: gr.Request) -> Update:
        who, form = principal_of(request), {name: said(event, name) for name in FORM}
        as_of, against = form["asof"].strip() or None, form["against"].strip() or None
        try:
            query, mode = asked(form, await knowledge.fields(self._bench, who, collection))
            found = await knowledge.search(self._bench, who, collection, query, as_of)
            other = None if against is None else await knowledge.search(self._bench, who, collection, query, against)
        except PilothouseError as error:
            return {self.found: _drawn(None, (), "", notice=advice_on(error))}
        listed = rows(found, mode)
        if other is not None:
            listed = compared(listed, rows(other, mode))
        return {
            self.found: _drawn(found, listed, mode, other=other),
            self._passages: {row.candidate.passage.chunk_id: row.candidate.passage for row in listed},
        }

    async def _passage(self, passages: dict[str, Passage], event: gr.EventData, request: gr.Request) -> tuple[Any, str]:
        who = principal_of(request)
        try:
            passage = passages.get(said(event, "chunk"))
            if passage is None:
                raise Missing("no such passage in this search")
            record, text = await knowledge.document(self._bench, who, passage.collection, passage.document_id)
        except PilothouseError as error:
            return draw("unread", notice=advice_on(error)), ""
        return drawn_found(record, text, passage, writable=knowledge.may_write(who, passage.collection)), ""


def nothing_asked() -> Markup:
    return _drawn(None, (), "")


def _drawn(
    found: Found | None,
    listed: "list[Row] | tuple[()]",
    mode: str,
    *,
    other: Found | None = None,
    notice: Advice | None = None,
) -> Markup:
    return draw("candidates", found=found, rows=listed, mode=mode, other=other, notice=notice)
