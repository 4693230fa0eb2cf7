"""Taking documents in as a job: in groups, each settled once it is in the index; one that is lost fails alone."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from app.jobs.items import INGEST
from app.jobs.objects import Objects, is_object
from app.jobs.stages import Stages
from app.jobs.urls import FETCHED_AT_ONCE, Fetcher
from app.records import Scope
from app.services.ingest.ingest import GROUP, Ingest, Outcome, Source
from app.services.jobs.ports import ItemEnd, ItemState, JobFailure, JobWork
from app.services.jobs.rows import failure
from graphs.errors import PilothouseError

GROUP_BYTES: Final = 8 * 2**20  # held in memory at once, one document at the least
MAX_NAMED: Final = 1_000  # failures that a job's result names; all of them are among its items


class IngestJob:
    """Payload: `collection`. An item is a document, named by its id, or the URL of one, in a bucket or anywhere."""

    name = INGEST
    scope: Scope = "documents"

    def __init__(self, ingest: Ingest, fetcher: Fetcher, objects: Objects) -> None:
        self._ingest, self._fetcher, self._objects = ingest, fetcher, objects

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        group: list[ItemState] = []
        async for item in work.open_items():
            group.append(item)
            if _is_full(group):
                await self._take_in(work, group)
                group = []
        await self._take_in(work, group)
        counts = await work.counts()
        failed = [_named(item) for item in await work.failed(MAX_NAMED)]
        collection = work.state.payload["collection"]
        return {"collection": collection, "documents": counts.get("succeeded", 0), "failed": failed}

    async def _take_in(self, work: JobWork, group: Sequence[ItemState]) -> None:
        if not group:
            return
        state, begun = work.state, time.perf_counter()
        found = await asyncio.gather(*(self._source(state.principal.tenant_id, item) for item in group))
        took_s = time.perf_counter() - begun
        both = list(zip(group, found, strict=True))
        sources = [replace(each, uploaded_by=state.principal.user_id) for each in found if isinstance(each, Source)]
        async with Stages(work, {each.id: item.number for item, each in both if isinstance(each, Source)}) as stages:
            for item, each in both:
                if "url" in item.input and isinstance(each, Source):
                    stages.passed(each.id, "fetch", took_s)
            who, collection = state.principal, state.payload["collection"]
            taken = await self._ingest.add_batch(who.tenant_id, collection, sources, stages, sight=who.sight)
            outcomes = iter(taken)
        await work.settle(
            [
                _end(item, next(outcomes), stages) if isinstance(each, Source) else ItemEnd(item.number, error=each)
                for item, each in both
            ]
        )

    async def _source(self, tenant_id: str, item: ItemState) -> Source | JobFailure:
        told = item.input
        if "url" not in told:
            return _source(item)
        url = told["url"]
        rest = {"document_id": told["documentId"], "title": told["title"], "metadata": told["metadata"]}
        try:
            if is_object(url):
                source = await self._objects.source(tenant_id, url, **rest)
            else:
                source = await self._fetcher.source(url, **rest)
            return replace(source, allow_groups=told.get("allowGroups"))
        except PilothouseError as error:
            return failure(error)


def _is_full(group: Sequence[ItemState]) -> bool:
    if sum("url" in item.input for item in group) == FETCHED_AT_ONCE:
        return True
    return len(group) == GROUP or sum(len(item.content or b"") for item in group) >= GROUP_BYTES


def _end(item: ItemState, outcome: Outcome, stages: Stages) -> ItemEnd:
    took = {"tookMs": stages.of(outcome.id)}
    if outcome.record is None:
        assert outcome.error is not None, "an outcome has a record or an error"
        return ItemEnd(item.number, took, failure(outcome.error))
    told = {"chunks": outcome.record.chunks, "documentId": outcome.id, "happened": outcome.happened}
    return ItemEnd(item.number, told | took)


def _source(item: ItemState) -> Source:
    told, content = item.input, item.content or b""
    return Source(
        id=item.name,
        content=content.decode("utf-8", "surrogatepass") if told["isText"] else content,
        filename=told["filename"],
        media_type=told["mediaType"],
        title=told["title"],
        metadata=told["metadata"],
        allow_groups=told.get("allowGroups"),
        trust=told.get("trust", "untrusted"),
    )


def _named(item: ItemState) -> dict[str, str]:
    error = item.error
    assert error is not None, "only failed items are asked for"
    return {"documentId": item.name, "code": error.code, "message": error.message}
