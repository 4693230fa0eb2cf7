"""Work on collections as jobs: made anew, or kept quick and small. No two jobs are at one collection."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from app.builds import Builds, Wish
from app.records import Scope
from app.services.ingest.chunk import Chunking
from app.services.jobs.ports import JobProgress, JobWork
from app.services.retrieval.gate import Thresholds
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.place import Place
from graphs.errors import Forbidden

REBUILD: Final = "rebuild"
OPTIMIZE: Final = "optimize"


class RebuildJob:
    """Payload: `collection`, `chunker` as `Chunking` writes it and `embedder`, each None to stay as it is, `keep`, and
    `bounds` by the names of `Thresholds`.

    A build that the gate refuses is a result, not a failure: it waits to be promoted under other bounds.
    """

    name = REBUILD
    scope: Scope = "documents"

    def __init__(self, builds: Builds) -> None:
        self._builds = builds

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        tenant_id, told = work.state.principal.tenant_id, work.state.payload
        chunking = None if told["chunker"] is None else Chunking.parsed(told["chunker"])
        wish = Wish(chunking, told["embedder"], told["keep"], Thresholds(**told["bounds"]))

        async def progress(done: int, total: int) -> None:
            await work.progress(JobProgress(done, total, "build" if done < total else "judge"))

        async with work.alone(_lease(Place(tenant_id, told["collection"]).base)):
            built = await self._builds.rebuild(
                tenant_id, told["collection"], wish, errand=work.state.job_id, told=progress
            )
        report = None if built.report is None else built.report.summary
        return {"indexVersion": built.version, "promoted": built.promoted, "report": report}


class OptimizeJob:
    """Payload: `collection`; the owner's job without one goes through those of all tenants.

    Of one collection, `dropped` names the builds beside the live one that went with erased text.
    """

    name = OPTIMIZE
    scope: Scope = "documents"

    def __init__(self, maintenance: Maintenance, library: Library) -> None:
        self._maintenance, self._library = maintenance, library

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        who, collection = work.state.principal, work.state.payload.get("collection")
        if collection is None:
            return await self._round(work)
        place = Place(who.tenant_id, collection)
        async with work.alone(_lease(place.base)):
            dropped = await self._maintenance.optimise(place)
        return {"indexVersion": await self._library.version(who.tenant_id, collection), "dropped": list(dropped)}

    async def _round(self, work: JobWork) -> Mapping[str, Any]:
        if not work.state.principal.is_owner:
            raise Forbidden("a round through all collections needs the scope owner")

        def alone(base: str) -> AbstractAsyncContextManager[None]:
            return work.alone(_lease(base), wait=False)

        async def told(done: int, total: int) -> None:
            await work.progress(JobProgress(done, total, "optimize"))

        return {"collections": await self._maintenance.round(alone, told)}


def _lease(base: str) -> str:
    return f"collection {base}"
