"""Runs that were handed to a person."""

from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.deps import Bench, Cursor, Limit, holder
from app.api.views import EscalationOut, ListOut, listed
from app.records import Principal

router = APIRouter(prefix="/api/ai/escalations", tags=["escalations"])


@router.get("", summary="List escalations", response_model=ListOut[EscalationOut])
async def list_escalations(
    bench: Bench,
    principal: Annotated[Principal, Depends(holder("approvals", "runs"))],
    limit: Limit,
    cursor: Cursor = None,
) -> ListOut[EscalationOut]:
    """The tenant's, newest first."""
    return listed(await bench.store.escalations.list(principal.tenant_id, limit, cursor), EscalationOut.of)
