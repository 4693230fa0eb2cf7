"""Tool calls in the Approvals tab: the list, one of them drawn from the server's own data, and what is said of it.

Nothing of the model's prose is shown: the tool, its reach, the arguments and where they come from, each by its name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, get_args

import gradio as gr
from markupsafe import Markup

from app.console.advice import Advice, advice_on
from app.console.chat import DECISIONS
from app.console.inbox_view import edited, fields, left
from app.console.panel import said
from app.console.reader import Reader
from app.console.view import draw
from app.records import ApprovalState, Principal
from app.services.store.records import ApprovalRecord
from app.workbench import Workbench
from graphs.errors import Invalid, Missing, PilothouseError

PAGE_SIZE: Final = 25
MAX_COMMENT_CHARS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Draft:
    """What somebody has typed and not sent yet; `confirming` shows them what they changed before it counts."""

    typed: Mapping[str, str] = field(default_factory=dict)
    comment: str = ""
    confirming: bool = False
    notice: Advice | None = None


async def listed(
    bench: Workbench, who: Principal, cursor: str | None, current: str, state: str
) -> tuple[Markup, str | None]:
    """The list's page, and the cursor of the next."""
    found: list[ApprovalRecord] = []
    after: str | None = None
    notice: Advice | None = None
    wanted: ApprovalState = next((name for name in get_args(ApprovalState) if name == state), "pending")
    if who.may("approvals"):
        try:
            page = await bench.store.approvals.list(who.tenant_id, wanted, PAGE_SIZE, cursor)
            found, after = list(page.items), page.next_cursor
        except PilothouseError as error:
            notice = advice_on(error)
    table = draw(
        "approvals",
        approvals=found,
        current=current,
        state=wanted,
        notice=notice,
        may=who.may("approvals"),
        waits_s=bench.settings.approval_ttl_s,
    )
    return table, after


async def opened(
    bench: Workbench, reader: Reader, who: Principal, approval_id: str, draft: Draft
) -> tuple[Markup, str]:
    """One call as it is now, and its state with what stands. Raises Missing."""
    asked = await _approval(bench, who, approval_id)
    question, seen = "", True
    try:
        question = (await reader.run(who, asked.run_id)).message
    except Missing:  # of another user, whose runs are not for everyone that decides
        seen = False
    decisions = bench.runner.decisions
    standing = None if asked.standing == asked.arguments else asked.standing
    shown = draw(
        "approval",
        asked=asked,
        lines=fields(asked.arguments, standing),
        inputs=fields(asked.standing, None, draft.typed),
        confirming=draft.confirming,
        question=question,
        seen=seen,
        comment=draft.comment or asked.comment,
        max_comment_chars=MAX_COMMENT_CHARS,
        notice=draft.notice,
        mine=asked.user_id == who.user_id,
        left=left((asked.expires_at - bench.clock()).total_seconds()),
        refusals={name: decisions.refusal(who, asked, name) for name in DECISIONS.values()},
        approved_before=asked.first_by == who.user_id,
    )
    return shown, f"{asked.state} {asked.binding}"


async def decided(bench: Workbench, who: Principal, event: gr.EventData) -> Draft:
    """Do what was said of a call, or give back what was typed: with why it was refused, or to be looked at again."""
    asked = await _approval(bench, who, said(event, "approval"))
    # A browser ends the lines of a form with CR and LF.
    typed = {line.name: said(event, line.key).replace("\r\n", "\n") for line in fields(asked.standing)}
    draft = Draft(typed, said(event, "comment").strip()[:MAX_COMMENT_CHARS])
    if (wish := said(event, "decision")) == "edit":
        return draft
    try:
        if (decision := DECISIONS.get(wish)) is None:
            raise Invalid("a decision is approve or deny", field="decision")
        changed = edited(asked.standing, typed) if decision == "approve" else None
        if changed is not None and not said(event, "confirmed"):
            return replace(draft, confirming=True)
        seen = said(event, "binding") or None
        await bench.runner.decide(who, asked.approval_id, decision, arguments=changed, comment=draft.comment, seen=seen)
    except PilothouseError as error:
        return replace(draft, notice=advice_on(error))
    return Draft()


async def _approval(bench: Workbench, who: Principal, approval_id: str) -> ApprovalRecord:
    """Raises Missing, also for those who may not decide."""
    if not who.may("approvals"):
        raise Missing("no such approval")
    return await bench.store.approvals.get(approval_id, who.tenant_id)
