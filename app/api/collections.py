"""What collections there are. A collection comes with its first document and goes with its last."""

from fastapi import APIRouter

from app.api.deps import Bench, DocumentReader
from app.api.views import CollectionOut, ListOut
from app.names import SHARED_TENANT

router = APIRouter(prefix="/api/ai/collections", tags=["documents"])


@router.get("", summary="List collections", response_model=ListOut[CollectionOut])
async def list_collections(bench: Bench, principal: DocumentReader) -> ListOut[CollectionOut]:
    """The tenant's by name, then the handbook that all tenants share."""
    own = await bench.store.documents.collections(principal.tenant_id)
    shared = await bench.store.documents.collections(SHARED_TENANT)
    return ListOut(items=[CollectionOut.of(record) for record in (*own, *shared)])
