"""The audit trail: who did what."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.api.deps import Bench, Limit, holder
from app.api.views import AuditOut, ListOut
from app.records import Principal
from graphs.errors import Invalid

router = APIRouter(prefix="/api/ai/audit", tags=["audit"])


@router.get("", summary="Read the audit trail", response_model=ListOut[AuditOut])
async def read_audit(
    bench: Bench,
    principal: Annotated[Principal, Depends(holder("runs"))],
    limit: Limit,
    cursor: Annotated[str | None, Query(max_length=32, description="`nextCursor` of the page before.")] = None,
) -> ListOut[AuditOut]:
    """The tenant's, or everybody's for the owner; newest first."""
    whose = None if principal.is_owner else principal.tenant_id
    found = await bench.store.audit.latest(whose, limit + 1, _before(cursor))
    items = [AuditOut.of(entry) for entry in found[:limit]]
    return ListOut(items=items, next_cursor=str(items[-1].sequence) if len(found) > limit else None)


def _before(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdecimal() and len(cursor) < 19):
        raise Invalid("the cursor is not one that this list gave", field="cursor")
    return int(cursor)
