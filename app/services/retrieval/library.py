"""The collections: vectors and words of all documents, in LanceDB.

A folder (or an object store's URL), one table for each tenant and collection, searched exactly. Every process that
opens it sees what the others commit. Replacing one document from two processes at the same moment is not ordered here.
"""

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from app.services.retrieval.embedder import Embedder
from app.services.retrieval.fuse import fuse
from app.services.retrieval.legs import search_legs
from app.services.retrieval.query import checked_limit, checked_query, checked_where
from app.services.retrieval.table import Entry, made_by, passage, rows, schema, table_name
from graphs.errors import Conflict, Missing, UpstreamError
from graphs.types import Retrieval

log = logging.getLogger(__name__)

CANDIDATES = 100  # of each leg; never fewer than the results asked for
KEPT = timedelta(hours=1)  # old versions stay for readers that are on them, then their data goes
COMMIT_TRIES = 8
HELD_TABLES = 256


class IndexFailed(UpstreamError):
    """The index could not be read or written."""

    code = "index_failed"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A table that stays at one version, so that both legs of a search read the same rows."""

    table: Any
    version: int


class Library:
    """Searches and writes collections by tenant. The tenant is an argument: who may name it is the caller's matter."""

    def __init__(self, database: Any, embedder: Embedder) -> None:
        self._db = database
        self._embedder = embedder
        self._tables: OrderedDict[str, Any] = OrderedDict()
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()
        self._writers: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    async def open(cls, folder: Path | str, embedder: Embedder) -> "Library":
        """Opening creates the folder if need be; tables are opened when first used."""
        # Lazy: importing it costs more than a second; the thread leaves the event loop free meanwhile.
        lancedb = await asyncio.to_thread(import_module, "lancedb")
        # Zero: every look at a version sees what other processes have committed.
        return cls(await lancedb.connect_async(str(folder), read_consistency_interval=timedelta(0)), embedder)

    async def close(self) -> None:
        self._tables.clear()
        self._snapshots.clear()
        self._db.close()

    async def search(
        self,
        tenant_id: str,
        collection: str,
        query: str,
        limit: int = 6,
        where: Mapping[str, Any] | None = None,
    ) -> Retrieval:
        """Best first, scores in [0, 1]. Raises Missing for an unknown collection, Invalid, IndexFailed."""
        question, limit, filters = checked_query(query), checked_limit(limit), checked_where(where)
        snapshot = await self._snapshot(tenant_id, collection)
        vector = (await self._embedder.embed([question]))[0]
        legs = await _guarded(search_legs(snapshot.table, question, vector, filters, max(limit, CANDIDATES)))
        best = fuse(legs.cosines, legs.bm25)[:limit]
        return Retrieval(
            passages=tuple(passage(legs.rows[chunk_id], score, collection) for chunk_id, score in best),
            index_version=f"{collection}@{snapshot.version}",
            embedder=self._embedder.id,
        )

    async def version(self, tenant_id: str, collection: str) -> str:
        """`collection@number`; it changes with every commit. Raises Missing."""
        return f"{collection}@{(await self._snapshot(tenant_id, collection)).version}"

    async def states(self, tenant_id: str, collection: str, document_id: str) -> tuple[str, ...]:
        """The state that each held chunk of a document was written with; none if it or its collection is unknown."""
        from lancedb.expr import col, lit

        try:
            snapshot = await self._snapshot(tenant_id, collection)
        except Missing:
            return ()
        held = snapshot.table.query().where(col("document_id") == lit(document_id)).select(["state"])
        return tuple((await _guarded(held.to_arrow()))["state"].to_pylist())

    async def replace(self, tenant_id: str, collection: str, entries: Sequence[Entry]) -> None:
        """Put the documents in place of what was held of them, in one commit; the collection is made if need be.

        A reader sees all of it or nothing. Text indexing follows at once; until it is done the new rows are found
        too, only slower. The same document twice: the last one counts. Raises Conflict, IndexFailed.
        """
        from lancedb.expr import col, lit

        latest = {entry.document_id: entry for entry in entries}
        if not latest:
            return
        data = await asyncio.to_thread(self._arrow, tenant_id, collection, list(latest.values()))
        name = table_name(tenant_id, collection)
        async with self._writer(name):
            table = await self._writable(name, collection)

            async def commit() -> None:
                gone = col("document_id").isin([lit(document_id) for document_id in latest])
                merge = table.merge_insert("chunk_id").when_matched_update_all().when_not_matched_insert_all()
                await merge.when_not_matched_by_source_delete(gone).execute(data)

            await _committed(commit)
            await self._tidy(table)

    async def remove(self, tenant_id: str, collection: str, document_id: str) -> None:
        """Forget the document; nothing happens if it is not held. Raises IndexFailed."""
        from lancedb.expr import col, lit

        name = table_name(tenant_id, collection)
        async with self._writer(name):
            try:
                table = await self._open(name, collection)
            except Missing:
                return
            await _committed(lambda: table.delete(col("document_id") == lit(document_id)))
            await self._tidy(table)

    def _arrow(self, tenant_id: str, collection: str, entries: Sequence[Entry]) -> Any:
        import pyarrow as pa

        layout = schema(self._embedder.id, self._embedder.dimensions)
        table = pa.Table.from_pylist(list(rows(tenant_id, collection, entries)), schema=layout.remove(len(layout) - 1))
        vectors = np.concatenate([entry.vectors for entry in entries]).astype(np.float32).reshape(-1)
        column = pa.FixedSizeListArray.from_arrays(vectors, self._embedder.dimensions)
        return table.append_column(layout.field("vector"), column).cast(layout)

    async def _open(self, name: str, collection: str) -> Any:
        """The table at its newest version. Raises Missing, Conflict if another embedder or layout made it."""
        if name not in self._tables:
            try:
                table = await self._db.open_table(name)
            except ValueError as error:
                if "was not found" not in str(error):
                    raise IndexFailed(f"the index of collection {collection} could not be opened") from error
                raise Missing(f"no collection {collection}") from error
            made = ((await table.schema()).metadata or {}).get(b"made", b"").decode()
            if made != made_by(self._embedder.id):
                raise Conflict(f"collection {collection} was made by {made or 'an older version'} and must be rebuilt")
            _hold(self._tables, name, table)
        return self._tables[name]

    async def _writable(self, name: str, collection: str) -> Any:
        """The table, made with its text index if it is new: rows come only when they will be indexed."""
        from lancedb.index import FTS

        try:
            table = await self._open(name, collection)
        except Missing:
            layout = schema(self._embedder.id, self._embedder.dimensions)
            table = await _guarded(self._db.create_table(name, schema=layout, exist_ok=True))
            _hold(self._tables, name, table)
        if not await table.list_indices():
            # icu/split also parts Chinese and Japanese, where the default takes a whole sentence as one word.
            words_index = FTS(base_tokenizer="icu/split", language="English", stem=True, max_token_length=64)
            await _committed(lambda: table.create_index("words", config=words_index))
        return table

    async def _snapshot(self, tenant_id: str, collection: str) -> Snapshot:
        name = table_name(tenant_id, collection)
        version = await _guarded((await self._open(name, collection)).version())
        held = self._snapshots.get(name)
        if held is None or held.version != version:
            table = await _guarded(self._db.open_table(name))
            await _guarded(table.checkout(version))
            held = Snapshot(table, version)
            _hold(self._snapshots, name, held)
        return held

    def _writer(self, name: str) -> asyncio.Lock:
        """Writers of a table in this process take turns: their commits would only push each other back."""
        return self._writers.setdefault(name, asyncio.Lock())

    async def _tidy(self, table: Any) -> None:
        """Index the new rows, join small files, drop old versions."""
        try:
            await _committed(lambda: table.optimize(cleanup_older_than=KEPT))
        except IndexFailed as error:
            # The rows are committed and searchable, and the next write does this again: no reason to fail the ingest.
            log.warning("index not optimised", extra={"table": table.name}, exc_info=error)


def _hold(held: OrderedDict[str, Any], name: str, value: Any) -> None:
    held[name] = value
    held.move_to_end(name)
    if len(held) > HELD_TABLES:
        held.popitem(last=False)


async def _guarded(work: Awaitable[Any]) -> Any:
    """LanceDB raises plain RuntimeError, ValueError and OSError for what its files or its store did to it."""
    try:
        return await work
    except (RuntimeError, ValueError, OSError) as error:
        raise IndexFailed("the index could not be read or written") from error


async def _committed(commit: Callable[[], Awaitable[Any]]) -> Any:
    """Commit, and again when another process's commit came between. Raises IndexFailed."""
    for attempt in range(COMMIT_TRIES):
        try:
            return await commit()
        except (RuntimeError, ValueError, OSError) as error:
            if "commit conflict" not in str(error).lower() or attempt == COMMIT_TRIES - 1:
                raise IndexFailed("the index could not be written") from error
        await asyncio.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**attempt)  # noqa: S311 (jitter, no secret)
    raise AssertionError("unreachable")
