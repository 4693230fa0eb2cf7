"""Escalations in the Approvals tab: runs that policy or a failure stopped, and who sees to each."""

from typing import Final, get_args

import gradio as gr
from markupsafe import Markup

from app.console.advice import Advice, advice_on
from app.console.panel import said
from app.console.reader import Reader
from app.console.view import draw
from app.records import EscalationState, Principal
from app.services.store.escalations import Step
from app.services.store.records import EscalationRecord
from app.workbench import Workbench
from graphs.errors import Forbidden, Invalid, Missing, PilothouseError

PAGE_SIZE: Final = 25
MAX_COMMENT_CHARS: Final = 1_000


async def listed(
    bench: Workbench, who: Principal, cursor: str | None, current: str, state: str
) -> tuple[Markup, str | None]:
    """The list's page, and the cursor of the next."""
    found: list[EscalationRecord] = []
    after: str | None = None
    notice: Advice | None = None
    wanted: EscalationState = next((name for name in get_args(EscalationState) if name == state), "open")
    if _may_look(who):
        try:
            page = await bench.store.escalations.list(who.tenant_id, PAGE_SIZE, cursor, state=wanted)
            found, after = list(page.items), page.next_cursor
        except PilothouseError as error:
            notice = advice_on(error)
    table = draw("escalations", escalations=found, current=current, state=wanted, notice=notice, may=_may_look(who))
    return table, after


async def opened(
    bench: Workbench, reader: Reader, who: Principal, escalation_id: str, notice: Advice | None
) -> tuple[Markup, str]:
    """One of them as it is now, and its state. Raises Missing."""
    if not _may_look(who):
        raise Missing("no such escalation")
    raised = await bench.store.escalations.get(escalation_id, who.tenant_id)
    try:
        run = await reader.run(who, raised.run_id)
    except Missing:  # of another user, whose runs are not for everyone
        run = None
    shown = draw(
        "escalation",
        raised=raised,
        run=run,
        notice=notice,
        may=who.may("approvals"),
        max_comment_chars=MAX_COMMENT_CHARS,
    )
    return shown, raised.state


async def moved(bench: Workbench, who: Principal, event: gr.EventData) -> None:
    """Take or close one. Raises Forbidden, Missing, and Conflict where somebody was first."""
    if not who.may("approvals"):
        raise Forbidden("this key may not see to escalations; it needs the scope approvals")
    step = next((name for name in get_args(Step) if name == said(event, "step")), None)
    if step is None:
        raise Invalid("an escalation is taken or closed", field="step")
    comment = said(event, "comment").strip()[:MAX_COMMENT_CHARS]
    await bench.store.escalations.move(said(event, "escalation"), who.tenant_id, who.actor, step, comment)


def _may_look(who: Principal) -> bool:
    return who.may("approvals") or who.may("runs")
