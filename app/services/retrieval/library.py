"""The collections: vectors and words of all documents, in LanceDB.

A folder or a bucket, one table for each tenant and collection. Every process that opens it sees what the others
commit. A collection that is rebuilt has a second table for a while: each write goes to both, under a turn that all
processes take.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from app.buckets import Bucket
from app.services.retrieval.arrow import arrow
from app.services.retrieval.bucket_turns import BucketTurns
from app.services.retrieval.commit import IndexDamaged, IndexFailed, committed, guarded
from app.services.retrieval.damage import Damage
from app.services.retrieval.embedder import Embedder
from app.services.retrieval.groups import Seen, hidden_documents, relabelled
from app.services.retrieval.locks import Locks
from app.services.retrieval.look import Found, look
from app.services.retrieval.place import Place
from app.services.retrieval.query import Query
from app.services.retrieval.rerank import OWN, Named, rerankers, unnamed
from app.services.retrieval.shelf import Shelf, Snapshot
from app.services.retrieval.table import Entry
from app.services.retrieval.versions import Version, label
from app.sight import OPEN, Sight
from graphs.errors import Missing
from graphs.types import Retrieval, Trust

__all__ = ["IndexDamaged", "IndexFailed", "Library"]

log = logging.getLogger(__name__)

KEPT = timedelta(hours=1)  # old versions stay for readers that are on them and for "as of", then their data goes


class Library:
    """Searches and writes collections by tenant. The tenant is an argument: who may name it is the caller's matter."""

    def __init__(self, shelf: Shelf, embedder: Embedder) -> None:
        self.shelf = shelf
        self.embedder = embedder
        self._rerankers = rerankers(embedder)

    @classmethod
    async def open(cls, where: Path | Bucket, embedder: Embedder) -> "Library":
        """Opening creates the folder if need be, and tries whether a bucket will do; tables are opened when first used.

        Raises what `Bucket.check` does.
        """
        # Lazy: importing it costs more than a second; the thread leaves the event loop free meanwhile.
        lancedb = await asyncio.to_thread(import_module, "lancedb")
        options: Mapping[str, str] = {}
        if isinstance(where, Bucket):
            await where.check()  # noqa: ASYNC240 (not a path)
            options = where.lance_options
        # Zero: every look at a version sees what other processes have committed.
        database = await lancedb.connect_async(
            str(where), read_consistency_interval=timedelta(0), storage_options=options
        )
        locks = Locks(BucketTurns(where) if isinstance(where, Bucket) else where / ".locks")
        return cls(Shelf(database, locks, embedder.id, embedder.dimensions), embedder)

    async def close(self) -> None:
        self.shelf.close()

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What this process has found broken and nobody has mended yet."""
        return self.shelf.damage.damages

    async def search(
        self,
        tenant_id: str,
        collection: str,
        query: str,
        limit: int = 6,
        where: Mapping[str, Any] | None = None,
        as_of: str | None = None,
        sight: Sight = OPEN,
    ) -> Retrieval:
        """Best first, scores in [0, 1]. `as_of` is the `index_version` of an earlier answer.

        Raises Missing for an unknown collection or version, VersionGone, Invalid, IndexFailed.
        """
        return (await self.look(tenant_id, collection, Query.checked(query, limit, where), as_of, sight)).retrieval

    async def look(
        self,
        tenant_id: str,
        collection: str,
        query: Query,
        as_of: str | None = None,
        sight: Sight = OPEN,
        named: Named = unnamed,
    ) -> Found:
        """The same with all that was found on the way. `named` finds the re-rankers that are not the embedder's own.

        Raises Invalid too for a re-ranker that is not to be had.
        """
        place = Place(tenant_id, collection)
        await self.shelf.snapshot(place, as_of)  # an unknown collection is refused before anything is embedded

        async def read(work: Callable[[Snapshot], Awaitable[Any]]) -> tuple[Any, Snapshot]:
            return await self.shelf.read(place, work, as_of)

        seen = Seen(sight, None if as_of is None else await self._hidden(place, sight))
        own = self._rerankers if query.rerank in OWN else {query.rerank: named(query.rerank)}
        return await look(query, self.embedder, own, read, collection=collection, seen=seen)

    async def _hidden(self, place: Place, sight: Sight) -> frozenset[str]:
        """The documents that are kept from this reader now."""
        if sight.everything:
            return frozenset()
        found, _ = await self.shelf.read(place, partial(hidden_documents, sight=sight))
        return frozenset(found)

    async def version(self, tenant_id: str, collection: str) -> str:
        """`collection@number`, or `collection@build.number`; it changes with every commit. Raises Missing."""
        return (await self.shelf.snapshot(Place(tenant_id, collection))).label(collection)

    async def versions(self, tenant_id: str, collection: str) -> list[Version]:
        """What a search can be asked "as of" now, the newest first. Raises Missing."""
        place = Place(tenant_id, collection)
        await self.shelf.snapshot(place)
        stands, found = await self.shelf.standing(place), list[Version]()
        for build in stands.held:
            table = await self.shelf.open(place, build, foreign=True)
            for each in await guarded(table.list_versions()):
                if each["version"] >= stands.floors.get(build, 0):
                    found.append(
                        Version(
                            label=label(collection, build, each["version"]),
                            rows=int(each["metadata"]["total_rows"]),
                            size_bytes=int(each["metadata"]["total_files_size"]),
                            committed_at=each["timestamp"].astimezone(),
                            live=build == stands.live,
                        )
                    )
        return sorted(found, key=lambda version: version.committed_at, reverse=True)

    async def states(self, tenant_id: str, collection: str, document_id: str) -> tuple[str, ...]:
        """The state that each held chunk of a document was written with; none if it or its collection is unknown."""
        from lancedb.expr import col, lit

        async def held(snapshot: Snapshot) -> Any:
            rows = snapshot.table.query().where(col("document_id") == lit(document_id))
            return await rows.select(["state"]).to_arrow()

        try:
            found, _ = await self.shelf.read(Place(tenant_id, collection), held)
        except Missing:
            return ()
        return tuple(found["state"].to_pylist())

    async def replace(self, tenant_id: str, collection: str, entries: Sequence[Entry]) -> None:
        """Put the documents in place of what was held of them, in one commit; the collection is made if need be.

        A reader sees all of it or nothing. Text indexing follows at once; until it is done the new rows are found
        too, only slower. The same document twice: the last one counts. Raises Conflict, IndexFailed.
        """
        latest = {entry.document_id: entry for entry in entries}
        if not latest:
            return
        place = Place(tenant_id, collection)
        data = await asyncio.to_thread(arrow, tenant_id, collection, list(latest.values()), self.embedder)
        async with self.shelf.turn(place):
            stands = await self.shelf.standing(place)
            # The live build last: a crash before leaves the others ahead by what the caller will send again.
            for build in reversed(stands.written):
                table = await self.shelf.writable(place, build)
                await put(table, data, list(latest))
        await self._tidy(place, stands.live)

    async def relabel(
        self, tenant_id: str, collection: str, document_id: str, allow_groups: Sequence[str], trust: Trust
    ) -> None:
        """Say anew whom a document is for and where it came from, in one commit. Raises Missing, Conflict, IndexFailed.

        Once it returns every search goes by it, of earlier versions too.
        """
        place = Place(tenant_id, collection)
        async with self.shelf.turn(place):
            stands = await self.shelf.standing(place)
            for build in reversed(stands.written):
                await relabelled(await self.shelf.open(place, build), document_id, allow_groups, trust)
        await self._tidy(place, stands.live)

    async def remove(self, tenant_id: str, collection: str, document_id: str) -> None:
        """Forget the document; nothing happens if the collection is not there. Raises IndexFailed.

        Once it returns no version that held the text can be searched; `Rebuild.purge` takes it from the disk.
        """
        from lancedb.expr import col, lit

        place = Place(tenant_id, collection)
        async with self.shelf.turn(place):
            stands = await self.shelf.standing(place)
            for build in reversed(stands.held):
                try:
                    table = await self.shelf.open(place, build, foreign=True)
                except Missing:
                    continue
                await committed(partial(table.delete, col("document_id") == lit(document_id)))
                await self.shelf.note(place, "erased", build, version=await guarded(table.version()))
        await self._tidy(place, stands.live)

    async def _tidy(self, place: Place, build: str) -> None:
        try:
            await self.shelf.tidy(place, build, KEPT)
        except Missing:
            return  # another process has put a new build in its place
        except IndexFailed as error:
            # The rows are committed and searchable, and the next write does this again: no reason to fail the ingest.
            log.warning("index not optimised", extra={"collection": place.collection}, exc_info=error)


async def put(table: Any, data: Any, document_ids: Sequence[str]) -> None:
    """The rows in place of all that the table holds of these documents, in one commit."""
    from lancedb.expr import col, lit

    gone = col("document_id").isin([lit(document_id) for document_id in document_ids])
    merge = table.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all()
    await committed(lambda: merge.when_not_matched_by_source_delete(gone).execute(data))
