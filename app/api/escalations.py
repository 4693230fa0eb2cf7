"""Runs that were handed to people."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query

from app.api.body import StrictRoute
from app.api.deps import Approver, Bench, Cursor, Limit, holder
from app.api.schemas import EscalationIn
from app.api.views import EscalationOut, ListOut, Problem, listed
from app.records import EscalationState, Principal

router = APIRouter(prefix="/api/ai/escalations", tags=["escalations"], route_class=StrictRoute)

Onlooker = Annotated[Principal, Depends(holder("approvals", "runs"))]


@router.get("", summary="List escalations", response_model=ListOut[EscalationOut])
async def list_escalations(
    bench: Bench,
    principal: Onlooker,
    limit: Limit,
    cursor: Cursor = None,
    state: Annotated[EscalationState | None, Query(description="All where absent.")] = None,
) -> ListOut[EscalationOut]:
    """The tenant's, newest first."""
    page = await bench.store.escalations.list(principal.tenant_id, limit, cursor, state=state)
    return listed(page, EscalationOut.of)


@router.get("/{escalation_id}", summary="Read an escalation", response_model=EscalationOut)
async def read_escalation(escalation_id: str, bench: Bench, principal: Onlooker) -> EscalationOut:
    return EscalationOut.of(await bench.store.escalations.get(escalation_id, principal.tenant_id))


@router.post(
    "/{escalation_id}",
    summary="Take or close",
    response_model=EscalationOut,
    responses={409: {"model": Problem, "description": "Somebody else was first."}},
)
async def move_escalation(
    escalation_id: str, wanted: Annotated[EscalationIn, Body()], bench: Bench, principal: Approver
) -> EscalationOut:
    """An open one is taken by one person; whoever may decide closes it, taken or not."""
    moved = await bench.store.escalations.move(
        escalation_id, principal.tenant_id, principal.actor, wanted.step, wanted.comment
    )
    return EscalationOut.of(moved)
