"""The Approvals tab: calls that wait for people and runs that were handed to them, and one of either opened."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, get_args

import gradio as gr
from markupsafe import Markup

from app.console import inbox_calls as calls
from app.console import inbox_escalations as escalations
from app.console.advice import Advice, advice_on
from app.console.chat import PRIVATE, Update
from app.console.panel import panel, said
from app.console.reader import Reader, principal_of
from app.console.runs import Trail
from app.console.view import draw
from app.records import ApprovalState, EscalationState, Principal
from app.workbench import Workbench
from graphs.errors import PilothouseError

REFRESH_S: Final = 3.0
CALLS: Final = "calls"
ESCALATIONS: Final = "escalations"
WHAT: Final = [("Calls", CALLS), ("Escalations", ESCALATIONS)]


class Opened(NamedTuple):
    """What a browser shows beside the list: what is being typed there may not be drawn over until its state changes."""

    what: str = CALLS
    item_id: str = ""
    state: str = ""


class InboxTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench, reader: Reader) -> None:
        self._bench, self._reader = bench, reader
        with gr.Row(elem_id="inbox", elem_classes="desk"):
            with gr.Column(elem_id="inbox-list", elem_classes="desk-list", min_width=0):
                with gr.Row(elem_classes=["filters", "desk-filters"]):
                    self.what = gr.Dropdown(WHAT, value=CALLS, label="List", container=False, elem_id="inbox-what")
                    self.state = gr.Dropdown(
                        _choices(get_args(ApprovalState)),
                        value="pending",
                        label="State",
                        container=False,
                        elem_id="inbox-state",
                    )
                    self.handed = gr.Dropdown(
                        _choices(get_args(EscalationState)),
                        value="open",
                        label="State of escalations",
                        container=False,
                        visible=False,
                        elem_id="inbox-handed",
                    )
                self.table = panel(acts=("open",), elem_id="inbox-table")
                with gr.Row(elem_classes="pager"):
                    self.newer = gr.Button("Newer", size="sm", interactive=False)
                    self.older = gr.Button("Older", size="sm", interactive=False)
            with gr.Column(elem_id="inbox-detail", elem_classes="desk-detail", min_width=0):
                self.detail = panel(
                    draw("no_approval", notice=None, what=CALLS),
                    acts=("close", "decide", "move", "inspect"),
                    elem_id="approval",
                )
        self.trail = gr.State(Trail())
        self.opened = gr.State(Opened())
        self.timer = gr.Timer(REFRESH_S, active=False)
        self.chosen = [self.trail, self.opened, self.what, self.state, self.handed]

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        self.what.change(
            self._turn, self.chosen, [*self.page, self.state, self.handed], trigger_mode="always_last", **PRIVATE
        )
        for filtered in (self.state, self.handed):
            filtered.change(self._first, self.chosen, self.page, trigger_mode="always_last", **PRIVATE)
        self.timer.tick(self._tick, self.chosen, self.page, **PRIVATE)
        self.older.click(self._older, self.chosen, self.page, **PRIVATE)
        self.newer.click(self._newer, self.chosen, self.page, **PRIVATE)
        self.table.open(self._open, self.chosen, self.page, **PRIVATE)
        self.detail.close(self._close, self.what, [self.detail, self.opened], **PRIVATE)
        self.detail.decide(self._decide, self.chosen, self.page, **PRIVATE)
        self.detail.move(self._move, self.chosen, self.page, **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` may update."""
        return [self.table, self.newer, self.older, self.trail, self.detail, self.opened]

    async def listed(self, request: gr.Request, trail: Trail, opened: Opened, *chosen: str) -> Update:
        """The page of the list that is shown, and what is opened beside it, as they are now."""
        who = principal_of(request)
        return {**await self._list(who, trail.turned, opened, *chosen), **await self._detail(who, opened)}

    async def _tick(self, request: gr.Request, trail: Trail, opened: Opened, *chosen: str) -> Update:
        who = principal_of(request)
        update = await self._list(who, trail.turned, opened, *chosen)
        # What is chosen stays as it is: it may have changed since this look began.
        update.pop(self.trail)
        if opened.item_id:
            detail = await self._detail(who, opened)
            if detail[self.opened] != opened:
                update |= detail
        return update

    async def _turn(self, request: gr.Request, _: Trail, __: Opened, what: str, state: str, handed: str) -> Update:
        """Show the other list, with nothing opened."""
        update = await self._list(principal_of(request), (None,), Opened(what), what, state, handed)
        return update | {
            **self._close(what),
            self.state: gr.update(visible=what != ESCALATIONS),
            self.handed: gr.update(visible=what == ESCALATIONS),
        }

    async def _first(self, request: gr.Request, _: Trail, opened: Opened, *chosen: str) -> Update:
        return await self._list(principal_of(request), (None,), opened, *chosen)

    async def _older(self, request: gr.Request, trail: Trail, opened: Opened, *chosen: str) -> Update:
        return await self._list(principal_of(request), trail.older, opened, *chosen)

    async def _newer(self, request: gr.Request, trail: Trail, opened: Opened, *chosen: str) -> Update:
        return await self._list(principal_of(request), trail.newer, opened, *chosen)

    async def _open(
        self, event: gr.EventData, request: gr.Request, trail: Trail, _: Opened, what: str, *states: str
    ) -> Update:
        who = principal_of(request)
        wanted = Opened(what, said(event, "escalation" if what == ESCALATIONS else "approval"))
        detail = await self._detail(who, wanted)
        return {**await self._list(who, trail.turned, detail[self.opened], what, *states), **detail}

    def _close(self, what: str) -> Update:
        return {self.detail: draw("no_approval", notice=None, what=what), self.opened: Opened(what)}

    async def _decide(
        self, event: gr.EventData, request: gr.Request, trail: Trail, opened: Opened, *chosen: str
    ) -> Update:
        who, wanted = principal_of(request), Opened(CALLS, said(event, "approval"))
        try:
            draft = await calls.decided(self._bench, who, event)
        except PilothouseError as error:
            draft = calls.Draft(notice=advice_on(error))
        detail = await self._detail(who, wanted, draft)
        return {**await self._list(who, trail.turned, opened, *chosen), **detail}

    async def _move(
        self, event: gr.EventData, request: gr.Request, trail: Trail, opened: Opened, *chosen: str
    ) -> Update:
        who, wanted = principal_of(request), Opened(ESCALATIONS, said(event, "escalation"))
        notice: Advice | None = None
        try:
            await escalations.moved(self._bench, who, event)
        except PilothouseError as error:
            notice = advice_on(error)
        detail = await self._detail(who, wanted, calls.Draft(notice=notice))
        return {**await self._list(who, trail.turned, opened, *chosen), **detail}

    async def _list(
        self, who: Principal, turned: tuple[str | None, ...], opened: Opened, what: str, state: str, handed: str
    ) -> Update:
        if what == ESCALATIONS:
            table, after = await escalations.listed(self._bench, who, turned[-1], opened.item_id, handed)
        else:
            table, after = await calls.listed(self._bench, who, turned[-1], opened.item_id, state)
        return {
            self.table: table,
            self.newer: gr.update(interactive=len(turned) > 1),
            self.older: gr.update(interactive=after is not None),
            self.trail: Trail(turned, after),
        }

    async def _detail(self, who: Principal, opened: Opened, draft: calls.Draft | None = None) -> Update:
        """What is opened as it is now, or why it cannot be shown, or that nothing is chosen."""
        draft, what = draft or calls.Draft(), opened.what
        if not opened.item_id:
            return {self.detail: draw("no_approval", notice=draft.notice, what=what), self.opened: Opened(what)}
        drawn: tuple[Markup, str]
        try:
            if what == ESCALATIONS:
                drawn = await escalations.opened(self._bench, self._reader, who, opened.item_id, draft.notice)
            else:
                drawn = await calls.opened(self._bench, self._reader, who, opened.item_id, draft)
        except PilothouseError as error:
            return {self.detail: draw("no_approval", notice=advice_on(error), what=what), self.opened: Opened(what)}
        return {self.detail: drawn[0], self.opened: Opened(what, opened.item_id, drawn[1])}


def _choices(states: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(_TITLES.get(state, state.title()), state) for state in states]


_TITLES: Final[Mapping[str, str]] = {"approved_once": "Approved once"}
