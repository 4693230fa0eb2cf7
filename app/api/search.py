"""POST /api/ai/search: passages without an answer, and how they came to be the ones."""

from typing import Annotated

from fastapi import APIRouter, Body

from app.api.body import StrictRoute
from app.api.deps import Bench, DocumentReader
from app.api.schemas import SearchIn
from app.api.search_views import SearchOut

router = APIRouter(prefix="/api/ai", tags=["documents"], route_class=StrictRoute)


@router.post("/search", summary="Search", response_model=SearchOut, response_model_exclude_unset=True)
async def search(wanted: Annotated[SearchIn, Body()], bench: Bench, principal: DocumentReader) -> SearchOut:
    """The top k passages of a collection of the caller's tenant, best first; the handbook where none is named.

    With `explain`, every candidate with its scores, and what keeps it from the top k.
    """
    # Loaded by then: the retriever needs the index's libraries, which the socket does not wait for.
    from app.search import search as searched
    from app.services.retrieval.query import Query

    done = await searched(
        bench,
        principal,
        Query.checked(wanted.query, wanted.k, wanted.filter, diversity=wanted.diversity, neighbours=wanted.neighbours),
        collection=wanted.collection,
        as_of=wanted.as_of,
        history=wanted.history,
        wish=wanted.wish,
    )
    return SearchOut.of(done, explained=wanted.explain)
