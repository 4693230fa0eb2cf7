"""The collections: vectors and words of all documents, in LanceDB.

A folder or a bucket, one table for each tenant and collection. Every process that opens it sees what the others
commit. A collection that is rebuilt has a second table for a while: each write goes to both, under a turn that all
processes take.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from app.buckets import Bucket
from app.services.retrieval.arrow import arrow
from app.services.retrieval.commit import IndexDamaged, IndexFailed, committed, guarded
from app.services.retrieval.damage import Damage
from app.services.retrieval.embedder import Embedder, Vectors
from app.services.retrieval.embedders import Embedders, Others
from app.services.retrieval.groups import Seen, hidden_documents, relabelled
from app.services.retrieval.look import Found, look
from app.services.retrieval.opening import opened
from app.services.retrieval.place import Place
from app.services.retrieval.query import Query
from app.services.retrieval.recipe import DEFAULT, Recipe, recipe_of
from app.services.retrieval.rerank import OWN, Named, rerankers, unnamed
from app.services.retrieval.shelf import Shelf, Snapshot
from app.services.retrieval.table import Entry, schema
from app.services.retrieval.tidying import Tidying
from app.services.retrieval.versions import Version, label
from app.sight import OPEN, Sight
from graphs.errors import Conflict, Missing
from graphs.types import Retrieval, Trust

__all__ = ["IndexDamaged", "IndexFailed", "Library"]

log = logging.getLogger(__name__)

REMADE_TRIES = 3
KEPT = timedelta(hours=1)  # old versions stay for readers that are on them and for "as of", then their data goes


class Remade(Conflict):
    """The collection was made anew by another embedder while it was searched."""

    code = "index_remade"


class Library:
    """Searches and writes collections by tenant. The tenant is an argument: who may name it is the caller's matter."""

    def __init__(self, shelf: Shelf, embedder: Embedder, embedders: Embedders) -> None:
        self.shelf = shelf
        self.embedder = embedder
        self.embedders = embedders
        self._rerankers = rerankers(embedder)
        self._tidying = Tidying()

    @classmethod
    async def open(cls, where: Path | Bucket, embedder: Embedder, others: Others | None = None) -> "Library":
        """Opening creates the folder if need be, and tries whether a bucket will do; tables are opened when first used.
        `others` are the embedders beside this one, which collections may be made by.

        Raises what `Bucket.check` does.
        """
        embedders = Embedders(embedder, others)
        return cls(await opened(where, embedders), embedder, embedders)

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
        seen = Seen(sight, None if as_of is None else await self.hidden(tenant_id, collection, sight))
        own = self._rerankers if query.rerank in OWN else {query.rerank: named(query.rerank)}
        for _ in range(REMADE_TRIES):
            # An unknown collection is refused before anything is embedded.
            first = await self.shelf.snapshot(place, as_of)
            embedder = await self.embedders.named(first.recipe.embedder, tenant_id, first.dimensions)
            read = partial(self._read_as, place, as_of, first.made)
            try:
                return await look(query, embedder, own, read, collection=collection, seen=seen)
            except Remade:
                continue  # another build was promoted since the question was embedded
        raise Remade(f"collection {place} is being made anew again and again")

    async def _read_as(
        self, place: Place, as_of: str | None, made: str, work: Callable[[Snapshot], Awaitable[Any]]
    ) -> tuple[Any, Snapshot]:
        """Raises Remade for a build of another embedder: a vector of one says nothing in the other's table."""

        async def same(snapshot: Snapshot) -> Any:
            if snapshot.made != made:
                raise Remade(f"collection {place} was made anew")
            return await work(snapshot)

        return await self.shelf.read(place, same, as_of)

    async def hidden(self, tenant_id: str, collection: str, sight: Sight) -> frozenset[str]:
        """The documents that are kept from this reader now. Raises what a search raises."""
        if sight.everything:
            return frozenset()
        found, _ = await self.shelf.read(Place(tenant_id, collection), partial(hidden_documents, sight=sight))
        return frozenset(found)

    async def version(self, tenant_id: str, collection: str) -> str:
        """`collection@number`, or `collection@build.number`; it changes with every commit. Raises Missing."""
        return (await self.shelf.snapshot(Place(tenant_id, collection))).label(collection)

    async def recipe(self, tenant_id: str, collection: str) -> Recipe:
        """What the live build is made by; the default where there is none yet."""
        try:
            return (await self.shelf.snapshot(Place(tenant_id, collection))).recipe
        except Missing:
            return DEFAULT

    async def live_recipe(self, tenant_id: str, collection: str) -> Recipe:
        """The same where the embedder is not to be had any more. Raises Missing."""
        place = Place(tenant_id, collection)
        live = (await self.shelf.standing(place)).live
        return await recipe_of(await self.shelf.open(place, live, foreign=True))

    async def embed(self, tenant_id: str, collection: str, recipe: Recipe, texts: Sequence[str]) -> Vectors:
        """Vectors as the collection's builds of that recipe hold them. Raises Invalid, and what the embedder does."""
        try:
            live = await self.shelf.snapshot(Place(tenant_id, collection))
        except Missing:
            live = None
        dimensions = live.dimensions if live is not None and live.recipe.embedder == recipe.embedder else None
        return await (await self.embedders.named(recipe.embedder, tenant_id, dimensions)).embed(texts)

    async def layout(self, tenant_id: str, recipe: Recipe) -> Any:
        """The schema of new builds of that recipe. Raises Invalid for an embedder that is not to be had."""
        embedder = await self.embedders.named(recipe.embedder, tenant_id)
        return schema(embedder.id, embedder.dimensions, recipe)

    def layout_of(self, recipe: Recipe, dimensions: int) -> Any:
        """The schema that a build of that recipe was made with, whatever the order of its columns has become."""
        return schema(self.embedders.id_of(recipe.embedder) or "", dimensions, recipe)

    async def versions(self, tenant_id: str, collection: str) -> list[Version]:
        """What a search can be asked "as of" now, the newest first. Raises Missing."""
        place = Place(tenant_id, collection)
        await self.shelf.snapshot(place)
        stands, found = await self.shelf.standing(place), list[Version]()
        for build in stands.held:
            table = await self.shelf.open(place, build, foreign=True)
            recipe = await recipe_of(table)
            for each in await guarded(table.list_versions()):
                if each["version"] >= stands.floors.get(build, 0):
                    found.append(
                        Version(
                            label=label(collection, build, each["version"]),
                            rows=int(each["metadata"]["total_rows"]),
                            size_bytes=int(each["metadata"]["total_files_size"]),
                            committed_at=each["timestamp"].astimezone(),
                            live=build == stands.live,
                            recipe=recipe,
                        )
                    )
        return sorted(found, key=lambda version: version.committed_at, reverse=True)

    async def states(
        self, tenant_id: str, collection: str, document_ids: Collection[str]
    ) -> Mapping[str, Sequence[str]]:
        """The state that each held chunk of these documents was written with; a document without chunks is absent."""
        from lancedb.expr import col, lit

        async def held(snapshot: Snapshot) -> Any:
            rows = snapshot.table.query().where(col("document_id").isin([lit(each) for each in document_ids]))
            return await rows.select(["document_id", "state"]).to_arrow()

        if not document_ids:
            return {}
        try:
            found, _ = await self.shelf.read(Place(tenant_id, collection), held)
        except Missing:
            return {}
        states: dict[str, list[str]] = {}
        for document_id, state in zip(found["document_id"].to_pylist(), found["state"].to_pylist(), strict=True):
            states.setdefault(document_id, []).append(state)
        return states

    async def replace(
        self, tenant_id: str, collection: str, entries: Sequence[Entry], recipe: Recipe = DEFAULT
    ) -> bool:
        """Put the documents in place of what was held of them, in one commit; the collection is made if need be.

        False, and nothing is written, where the live build is of another recipe than the entries. Builds beside it take
        them if they are of the same; others catch up when they are promoted or gone back to.

        A reader sees all of it or nothing. Text indexing follows when it is due (`Tidying`); until then the new rows
        are found too, only slower. The same document twice: the last one counts. Raises Conflict, IndexFailed.
        """
        latest = {entry.document_id: entry for entry in entries}
        if not latest:
            return True
        place = Place(tenant_id, collection)
        try:
            live = await self.shelf.snapshot(place)
        except Missing:
            layout = await self.layout(tenant_id, recipe)
        else:
            if live.recipe != recipe:
                return False
            layout = self.layout_of(recipe, live.dimensions)
        data = await asyncio.to_thread(arrow, tenant_id, collection, list(latest.values()), layout)
        async with self.shelf.turn(place):
            stands = await self.shelf.standing(place)
            alike = [build for build in stands.written if await self.shelf.is_made(place, build, layout)]
            if stands.live not in alike:
                return False
            # The live build last: a crash before leaves the others ahead by what the caller will send again.
            for build in reversed(alike):
                table = await self.shelf.writable(place, build, layout)
                await put(table, data, list(latest))
        await self._tidy(place, stands.live)
        return True

    async def chunks(self, tenant_id: str, collection: str) -> Mapping[str, int]:
        """How many chunks are held of each document. Raises Missing, IndexFailed."""

        async def held(snapshot: Snapshot) -> Any:
            return await snapshot.table.query().select(["document_id"]).to_arrow()

        found, _ = await self.shelf.read(Place(tenant_id, collection), held)
        return {each["values"]: each["counts"] for each in found["document_id"].value_counts().to_pylist()}

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
                await relabelled(await self.shelf.open(place, build, foreign=True), document_id, allow_groups, trust)
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
            table = await self.shelf.open(place, build, foreign=True)
            indexed = await guarded(table.index_stats("words_idx"))
            if indexed is None or self._tidying.is_due(
                table.name, indexed.num_indexed_rows, indexed.num_unindexed_rows
            ):
                with self._tidying.taking(table.name):
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
