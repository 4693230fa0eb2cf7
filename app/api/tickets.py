"""Tickets that agents wrote."""

from fastapi import APIRouter

from app.api.deps import Bench, Caller, Cursor, Limit
from app.api.views import ListOut, TicketOut, listed

router = APIRouter(prefix="/api/ai/tickets", tags=["tickets"])


@router.get("", summary="List tickets", response_model=ListOut[TicketOut])
async def list_tickets(bench: Bench, principal: Caller, limit: Limit, cursor: Cursor = None) -> ListOut[TicketOut]:
    """The tenant's queue, newest first: a ticket is written to be seen by others."""
    return listed(await bench.store.tickets.list(principal.tenant_id, limit, cursor), TicketOut.of)
