"""POST /api/ai/search: passages without an answer, and how they came to be the ones."""

from typing import Annotated

from fastapi import APIRouter, Body

from app.api.body import StrictRoute
from app.api.deps import Bench, DocumentReader
from app.api.schemas import SearchIn
from app.api.search_views import ExplanationOut, SearchOut
from app.telemetry.spans import RunTrace

router = APIRouter(prefix="/api/ai", tags=["documents"], route_class=StrictRoute)


@router.post("/search", summary="Search", response_model=SearchOut, response_model_exclude_unset=True)
async def search(wanted: Annotated[SearchIn, Body()], bench: Bench, principal: DocumentReader) -> SearchOut:
    """The top k passages of a collection of the caller's tenant, best first; the handbook where none is named.

    With `explain`, every candidate with its scores, and what keeps it from the top k.
    """
    # Loaded by then: the retriever needs the index's libraries, which the socket does not wait for.
    from app.services.retrieval.query import Query
    from app.services.retrieval.retriever import TenantRetriever

    # A search outside of a run has no trace to go into; its spans are let go.
    retriever = TenantRetriever(bench.library, principal.tenant_id, RunTrace("search"))
    query = Query.checked(
        wanted.query,
        wanted.k,
        wanted.filter,
        rerank=wanted.rerank,
        diversity=wanted.diversity,
        neighbours=wanted.neighbours,
    )
    found = await retriever.look(query, collection=wanted.collection, as_of=wanted.as_of)
    answer = SearchOut.of(found.retrieval)
    return answer.model_copy(update={"explanation": ExplanationOut.of(found)}) if wanted.explain else answer
