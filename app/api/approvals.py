"""Tool calls that wait for a person."""

from typing import Annotated

from fastapi import APIRouter, Body, Query

from app.api.body import StrictRoute
from app.api.deps import Approver, Bench, Cursor, Limit
from app.api.schemas import DecisionIn
from app.api.views import ApprovalOut, ListOut, Problem, listed
from app.records import ApprovalState

router = APIRouter(prefix="/api/ai/approvals", tags=["approvals"], route_class=StrictRoute)


@router.get("", summary="List approvals", response_model=ListOut[ApprovalOut])
async def list_approvals(
    bench: Bench,
    principal: Approver,
    limit: Limit,
    cursor: Cursor = None,
    state: Annotated[ApprovalState, Query()] = "pending",
) -> ListOut[ApprovalOut]:
    """The tenant's, newest first; by default what is pending."""
    return listed(await bench.store.approvals.list(principal.tenant_id, state, limit, cursor), ApprovalOut.of)


@router.get("/{approval_id}", summary="Read an approval", response_model=ApprovalOut)
async def read_approval(approval_id: str, bench: Bench, principal: Approver) -> ApprovalOut:
    return ApprovalOut.of(await bench.store.approvals.get(approval_id, principal.tenant_id))


@router.post(
    "/{approval_id}",
    summary="Decide",
    response_model=ApprovalOut,
    responses={409: {"model": Problem, "description": "Decided already, expired, or its run has ended."}},
)
async def decide(
    approval_id: str, decision: Annotated[DecisionIn, Body()], bench: Bench, principal: Approver
) -> ApprovalOut:
    """Once. The run goes on in the background; `/api/ai/runs/{requestId}/events` follows it."""
    decided = await bench.runner.decide(
        principal, approval_id, decision.decision, arguments=decision.arguments, comment=decision.comment
    )
    return ApprovalOut.of(decided)
