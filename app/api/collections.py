"""What collections there are, their versions and builds, and the questions that a new build is judged by.

A collection comes with its first document and goes with its last. Another tenant's is 404, as one that never was.
"""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from app.api.body import StrictRoute
from app.api.collection_views import GoldenListIn, GoldenOut, NowOut, OptimisedOut, PromoteIn, ReportOut, VersionOut
from app.api.deps import Bench, DocumentReader, DocumentWriter
from app.api.views import CollectionOut, ListOut, Problem
from app.names import HANDBOOK, SHARED_TENANT
from graphs.errors import Forbidden, Missing

router = APIRouter(prefix="/api/ai/collections", tags=["documents"], route_class=StrictRoute)


@router.get("", summary="List collections", response_model=ListOut[CollectionOut])
async def list_collections(bench: Bench, principal: DocumentReader) -> ListOut[CollectionOut]:
    """The tenant's by name, then the handbook that all tenants share."""
    own = await bench.store.documents.collections(principal.tenant_id, principal.sight)
    shared = await bench.store.documents.collections(SHARED_TENANT)
    return ListOut(items=[CollectionOut.of(record) for record in (*own, *shared)])


@router.get("/{name}/versions", summary="List versions", response_model=ListOut[VersionOut])
async def list_versions(name: str, bench: Bench, principal: DocumentReader) -> ListOut[VersionOut]:
    """What a search can be asked `asOf` now, the newest first. Versions that held erased text are not among them."""
    tenant = SHARED_TENANT if name == HANDBOOK else principal.tenant_id
    return ListOut(items=[VersionOut.of(version) for version in await bench.library.versions(tenant, name)])


@router.post(
    "/{name}/promote",
    summary="Promote the new build",
    response_model=ReportOut,
    responses={409: {"model": Problem, "description": "No new build waits."}},
)
async def promote(
    name: str, bench: Bench, principal: DocumentWriter, wanted: Annotated[PromoteIn | None, Body()] = None
) -> ReportOut:
    """Judge the build that waits by the golden questions; if it passes, it answers from now on."""
    _check_own(name)
    return ReportOut.of(await bench.builds.promote(principal.tenant_id, name, (wanted or PromoteIn()).thresholds()))


@router.post(
    "/{name}/rollback",
    summary="Roll back the last promotion",
    response_model=NowOut,
    responses={409: {"model": Problem, "description": "There is no build to go back to."}},
)
async def roll_back(name: str, bench: Bench, principal: DocumentWriter) -> NowOut:
    """The build before answers again, with every document written since. A second time goes forward again."""
    _check_own(name)
    return NowOut(index_version=await bench.builds.roll_back(principal.tenant_id, name))


@router.post("/{name}/optimise", summary="Optimise the index", response_model=OptimisedOut)
async def optimise(name: str, bench: Bench, principal: DocumentWriter) -> OptimisedOut:
    """Index new rows, join small files and drop old versions now; maintenance does the same by itself."""
    from app.services.retrieval.place import Place

    _check_own(name)
    dropped = await bench.maintenance.optimise(Place(principal.tenant_id, name))
    return OptimisedOut(index_version=await bench.library.version(principal.tenant_id, name), dropped=list(dropped))


@router.get("/{name}/golden", summary="List golden questions", response_model=ListOut[GoldenOut])
async def list_golden(name: str, bench: Bench, principal: DocumentReader) -> ListOut[GoldenOut]:
    await bench.library.version(principal.tenant_id, name)
    golden = await bench.golden.list(principal.tenant_id, name)
    hidden = await bench.library.hidden(principal.tenant_id, name, principal.sight)
    return ListOut(items=[GoldenOut.of(each) for each in golden if each.document_id not in hidden])


@router.post("/{name}/golden", summary="Add golden questions", status_code=201, response_model=ListOut[GoldenOut])
async def add_golden(
    name: str, wanted: Annotated[GoldenListIn, Body()], bench: Bench, principal: DocumentWriter
) -> ListOut[GoldenOut]:
    """At most 1,000 in a collection. Those of a deleted document go with it."""
    from app.services.retrieval.gate import Golden

    await bench.library.version(principal.tenant_id, name)
    hidden = await bench.library.hidden(principal.tenant_id, name, principal.sight)
    if any(each.document_id in hidden for each in wanted.items):
        # The gate would say how well their guess at its text meets it.
        raise Missing("a golden question names a document that is not there")
    golden = [Golden(each.question, each.document_id, each.passage) for each in wanted.items]
    return ListOut(items=[GoldenOut.of(each) for each in await bench.golden.add(principal.tenant_id, name, golden)])


@router.delete(
    "/{name}/golden/{golden_id}", summary="Delete a golden question", status_code=204, response_class=Response
)
async def remove_golden(name: str, golden_id: str, bench: Bench, principal: DocumentWriter) -> None:
    await bench.golden.remove(principal.tenant_id, name, golden_id)


def _check_own(name: str) -> None:
    if name == HANDBOOK:
        raise Forbidden("the handbook is the product's own")
