"""Tool calls that wait for people."""

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
    state: Annotated[
        ApprovalState, Query(description="pending is all that waits, for a second person too (approved_once).")
    ] = "pending",
    mine: Annotated[bool, Query(description="Only what the caller's own runs ask for.")] = False,
    request_id: Annotated[
        str | None, Query(alias="requestId", max_length=512, description="Only what this run asks for.")
    ] = None,
) -> ListOut[ApprovalOut]:
    """The tenant's, newest first; by default what waits."""
    user_id = principal.user_id if mine else None
    page = await bench.store.approvals.list(
        principal.tenant_id, state, limit, cursor, user_id=user_id, run_id=request_id
    )
    return listed(page, ApprovalOut.of)


@router.get("/{approval_id}", summary="Read an approval", response_model=ApprovalOut)
async def read_approval(approval_id: str, bench: Bench, principal: Approver) -> ApprovalOut:
    return ApprovalOut.of(await bench.store.approvals.get(approval_id, principal.tenant_id))


@router.post(
    "/{approval_id}",
    summary="Decide",
    response_model=ApprovalOut,
    responses={
        403: {"model": Problem, "description": "The rules of this server name others for this call."},
        409: {
            "model": Problem,
            "description": "Decided already, expired, changed since `binding`, approved by the caller already, or its "
            "run has ended; `graph_changed` where another version of the graph began it.",
        },
    },
)
async def decide(
    approval_id: str, decision: Annotated[DecisionIn, Body()], bench: Bench, principal: Approver
) -> ApprovalOut:
    """Once; of two persons, once each, and a denial of either ends it. Changed arguments make a first approval void.

    The run goes on in the background; `/api/ai/runs/{requestId}/events` follows it.
    """
    decided = await bench.runner.decide(
        principal,
        approval_id,
        decision.decision,
        arguments=decision.arguments,
        comment=decision.comment,
        seen=decision.binding,
    )
    return ApprovalOut.of(decided)
