"""Taking documents in as a job: in groups, each settled once it is in the index; what cannot be read fails alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.jobs.items import INGEST
from app.records import Scope
from app.services.ingest.ingest import GROUP, Ingest, Source
from app.services.jobs.ports import ItemEnd, ItemState, JobWork
from app.services.jobs.rows import failure

GROUP_BYTES: Final = 8 * 2**20  # held in memory at once, one document at the least
MAX_NAMED: Final = 1_000  # failures that a job's result names; all of them are among its items


class IngestJob:
    """Payload: `collection`. An item is a document, named by its id."""

    name = INGEST
    scope: Scope = "documents"

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    async def perform(self, work: JobWork) -> Mapping[str, Any]:
        group: list[ItemState] = []
        async for item in work.open_items():
            group.append(item)
            if len(group) == GROUP or sum(len(each.content or b"") for each in group) >= GROUP_BYTES:
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
        state = work.state
        sources = [_source(item) for item in group]
        outcomes = await self._ingest.add_batch(state.principal.tenant_id, state.payload["collection"], sources)
        ends = []
        for item, outcome in zip(group, outcomes, strict=True):
            result = None if outcome.record is None else {"chunks": outcome.record.chunks}
            ends.append(ItemEnd(item.number, result, None if outcome.error is None else failure(outcome.error)))
        await work.settle(ends)


def _source(item: ItemState) -> Source:
    told, content = item.input, item.content or b""
    return Source(
        id=item.name,
        content=content.decode("utf-8", "surrogatepass") if told["isText"] else content,
        filename=told["filename"],
        media_type=told["mediaType"],
        title=told["title"],
        metadata=told["metadata"],
    )


def _named(item: ItemState) -> dict[str, str]:
    error = item.error
    assert error is not None, "only failed items are asked for"
    return {"documentId": item.name, "code": error.code, "message": error.message}
