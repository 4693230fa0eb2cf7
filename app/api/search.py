"""POST /api/ai/search: passages without an answer."""

from typing import Annotated

from fastapi import APIRouter, Body

from app.api.body import StrictRoute
from app.api.deps import Bench, DocumentReader
from app.api.schemas import SearchIn
from app.api.views import SearchOut
from app.telemetry.spans import RunTrace

router = APIRouter(prefix="/api/ai", tags=["documents"], route_class=StrictRoute)


@router.post("/search", summary="Search", response_model=SearchOut)
async def search(wanted: Annotated[SearchIn, Body()], bench: Bench, principal: DocumentReader) -> SearchOut:
    """The top k passages of a collection of the caller's tenant, best first; the handbook where none is named."""
    # Loaded by then: the retriever needs the index's libraries, which the socket does not wait for.
    from app.services.retrieval.retriever import TenantRetriever

    # A search outside of a run has no trace to go into; its spans are let go.
    retriever = TenantRetriever(bench.library, principal.tenant_id, RunTrace("search"))
    found = await retriever.search(
        wanted.query, collection=wanted.collection, limit=wanted.k, where=wanted.filter or None
    )
    return SearchOut.of(found)
