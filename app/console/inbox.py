"""The Approvals tab: what waits for a person in the whole tenant, and one of them opened to be decided."""

from typing import Any, Final, NamedTuple, get_args

import gradio as gr
from markupsafe import Markup

from app.console.advice import Advice, advice_on
from app.console.chat import DECISIONS, PRIVATE, Update
from app.console.inbox_view import edited, fields
from app.console.panel import panel, said
from app.console.reader import Reader, principal_of
from app.console.runs import Trail
from app.console.view import draw
from app.records import ApprovalState, Principal
from app.services.store.records import ApprovalRecord
from app.workbench import Workbench
from graphs.errors import Invalid, Missing, PilothouseError

PAGE_SIZE: Final = 25
REFRESH_S: Final = 3.0
MAX_COMMENT_CHARS: Final = 1_000
STATES: Final = [(state.title(), state) for state in get_args(ApprovalState)]


class Opened(NamedTuple):
    """What a browser shows beside the list: what is being typed there may not be drawn over until its state changes."""

    approval_id: str = ""
    state: str = ""


class InboxTab:
    """Components and handlers of the tab; made inside a gr.Blocks context."""

    def __init__(self, bench: Workbench, reader: Reader) -> None:
        self._bench, self._reader = bench, reader
        with gr.Row(elem_id="inbox", elem_classes="desk"):
            with gr.Column(elem_id="inbox-list", elem_classes="desk-list", min_width=0):
                with gr.Row(elem_classes=["filters", "desk-filters"]):
                    self.state = gr.Dropdown(
                        STATES, value="pending", label="State", container=False, elem_id="inbox-state"
                    )
                self.table = panel(acts=("open",), elem_id="inbox-table")
                with gr.Row(elem_classes="pager"):
                    self.newer = gr.Button("Newer", size="sm", interactive=False)
                    self.older = gr.Button("Older", size="sm", interactive=False)
            with gr.Column(elem_id="inbox-detail", elem_classes="desk-detail", min_width=0):
                self.detail = panel(
                    draw("no_approval", notice=None), acts=("close", "decide", "inspect"), elem_id="approval"
                )
        self.trail = gr.State(Trail())
        self.opened = gr.State(Opened())
        self.timer = gr.Timer(REFRESH_S, active=False)
        self.chosen = [self.trail, self.opened, self.state]

    def listen(self) -> None:
        """Bind the handlers; the page does it once all tabs stand."""
        self.state.change(self._first, self.chosen, self.page, trigger_mode="always_last", **PRIVATE)
        self.timer.tick(self._tick, self.chosen, self.page, **PRIVATE)
        self.older.click(self._older, self.chosen, self.page, **PRIVATE)
        self.newer.click(self._newer, self.chosen, self.page, **PRIVATE)
        self.table.open(self._open, self.chosen, self.page, **PRIVATE)
        self.detail.close(
            lambda: (draw("no_approval", notice=None), Opened()), None, [self.detail, self.opened], **PRIVATE
        )
        self.detail.decide(self._decide, self.chosen, self.page, **PRIVATE)

    @property
    def page(self) -> list[Any]:
        """What `listed` may update."""
        return [self.table, self.newer, self.older, self.trail, self.detail, self.opened]

    async def listed(self, request: gr.Request, trail: Trail, opened: Opened, state: str) -> Update:
        """The page of the list that is shown, and the approval that is opened, as they are now."""
        who = principal_of(request)
        return {**await self._list(who, trail.turned, opened, state), **await self._detail(who, opened.approval_id)}

    async def _tick(self, request: gr.Request, trail: Trail, opened: Opened, state: str) -> Update:
        who = principal_of(request)
        update = await self._list(who, trail.turned, opened, state)
        # What is chosen stays as it is: it may have changed since this look began.
        update.pop(self.trail)
        if opened.approval_id:
            detail = await self._detail(who, opened.approval_id)
            if detail[self.opened] != opened:
                update |= detail
        return update

    async def _first(self, request: gr.Request, _: Trail, opened: Opened, state: str) -> Update:
        return await self._list(principal_of(request), (None,), opened, state)

    async def _older(self, request: gr.Request, trail: Trail, opened: Opened, state: str) -> Update:
        return await self._list(principal_of(request), trail.older, opened, state)

    async def _newer(self, request: gr.Request, trail: Trail, opened: Opened, state: str) -> Update:
        return await self._list(principal_of(request), trail.newer, opened, state)

    async def _open(self, event: gr.EventData, request: gr.Request, trail: Trail, _: Opened, state: str) -> Update:
        who, wanted = principal_of(request), said(event, "approval")
        detail = await self._detail(who, wanted)
        return {**await self._list(who, trail.turned, detail[self.opened], state), **detail}

    async def _decide(
        self, event: gr.EventData, request: gr.Request, trail: Trail, opened: Opened, state: str
    ) -> Update:
        who, wanted = principal_of(request), said(event, "approval")
        comment = said(event, "comment").strip()[:MAX_COMMENT_CHARS]
        typed: dict[str, str] = {}
        notice: Advice | None = None
        try:
            decision = DECISIONS.get(said(event, "decision"))
            if decision is None:
                raise Invalid("a decision is approve or deny", field="decision")
            asked = await self._approval(who, wanted)
            typed = {field.name: said(event, field.key) for field in fields(asked.arguments)}
            changed = edited(asked.arguments, typed) if decision == "approve" else None
            await self._bench.runner.decide(who, wanted, decision, arguments=changed, comment=comment)
            typed = {}
        except PilothouseError as error:
            notice = advice_on(error)
        detail = await self._detail(who, wanted, notice=notice, typed=typed, comment=comment)
        return {**await self._list(who, trail.turned, opened, state), **detail}

    async def _approval(self, who: Principal, approval_id: str) -> ApprovalRecord:
        """Raises Missing, also for those who may not decide."""
        if not who.may("approvals"):
            raise Missing("no such approval")
        return await self._bench.store.approvals.get(approval_id, who.tenant_id)

    async def _list(self, who: Principal, turned: tuple[str | None, ...], opened: Opened, state: str) -> Update:
        found: list[ApprovalRecord] = []
        after: str | None = None
        notice: Advice | None = None
        wanted: ApprovalState = next((name for name in get_args(ApprovalState) if name == state), "pending")
        if who.may("approvals"):
            try:
                page = await self._bench.store.approvals.list(who.tenant_id, wanted, PAGE_SIZE, turned[-1])
                found, after = list(page.items), page.next_cursor
            except PilothouseError as error:
                notice = advice_on(error)
        table = draw(
            "approvals",
            approvals=found,
            current=opened.approval_id,
            state=wanted,
            notice=notice,
            may=who.may("approvals"),
            waits_s=self._bench.settings.approval_ttl_s,
        )
        return {
            self.table: table,
            self.newer: gr.update(interactive=len(turned) > 1),
            self.older: gr.update(interactive=after is not None),
            self.trail: Trail(turned, after),
        }

    async def _detail(
        self,
        who: Principal,
        approval_id: str,
        *,
        notice: Advice | None = None,
        typed: dict[str, str] | None = None,
        comment: str = "",
    ) -> Update:
        """An approval as it is now, or why it cannot be shown, or that none is chosen."""
        if not approval_id:
            return {self.detail: draw("no_approval", notice=notice), self.opened: Opened()}
        try:
            asked = await self._approval(who, approval_id)
        except PilothouseError as error:
            return {self.detail: draw("no_approval", notice=advice_on(error)), self.opened: Opened()}
        return {
            self.detail: await self._drawn(who, asked, notice, typed or {}, comment),
            self.opened: Opened(approval_id, asked.state),
        }

    async def _drawn(
        self, who: Principal, asked: ApprovalRecord, notice: Advice | None, typed: dict[str, str], comment: str
    ) -> Markup:
        question, seen = "", True
        try:
            question = (await self._reader.run(who, asked.run_id)).message
        except Missing:  # of another user, whose runs are not for everyone that decides
            seen = False
        return draw(
            "approval",
            asked=asked,
            lines=fields(asked.arguments, asked.decided_arguments, typed),
            question=question,
            seen=seen,
            comment=comment or asked.comment,
            max_comment_chars=MAX_COMMENT_CHARS,
            notice=notice,
            mine=asked.user_id == who.user_id,
        )
