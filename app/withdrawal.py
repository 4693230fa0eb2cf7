"""Takes documents and tables back out of everything: index and earlier versions of it, golden questions, store, kept
answers, and the files of tables.

What names a document goes last, so that whoever was killed in between finds it again. Text that was erased from an
index leaves its files at once, or with the next round where a build of the collection is being made.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from app.records import Actor
from app.services.audit import audited
from app.services.ingest.ingest import Ingest
from app.services.retrieval.golden import GoldenQuestions
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.place import Place
from app.services.store.store import Store
from app.services.tables.shelf import TableShelf
from app.sight import EVERYTHING
from graphs.errors import Missing


@dataclass(frozen=True, slots=True)
class Uploads:
    """Of a tenant: its documents' collections and ids, and its tables' names."""

    tenant_id: str
    documents: Sequence[tuple[str, str]]
    tables: Sequence[str]

    def __bool__(self) -> bool:
        return bool(self.documents or self.tables)


class Withdrawal:
    """Of one installation. `forget` drops a tenant's kept answers, which quote its documents."""

    def __init__(
        self,
        store: Store,
        ingest: Ingest,
        golden: GoldenQuestions,
        maintenance: Maintenance,
        tables: TableShelf,
        forget: Callable[[str], Awaitable[object]],
    ) -> None:
        self._store, self._ingest, self._golden = store, ingest, golden
        self._maintenance, self._tables, self._forget = maintenance, tables, forget

    async def uploaded(self, tenant_id: str, user_id: str | None) -> Uploads:
        """What a user wrote last; with None, what came before that was written down, or through a command."""
        named = await self._store.documents.uploaded(tenant_id, user_id)
        tables = await self._tables.list(tenant_id, EVERYTHING)
        return Uploads(tenant_id, named, [table.name for table in tables if table.uploaded_by == user_id])

    async def written_before(self, tenant_id: str, moment: datetime) -> Uploads:
        named = await self._store.documents.written_before(tenant_id, moment)
        tables = await self._tables.list(tenant_id, EVERYTHING)
        return Uploads(tenant_id, named, [table.name for table in tables if table.created_at < moment])

    async def take(self, uploads: Uploads, by: Actor) -> Mapping[str, int]:
        """How many of each were still there. Raises what index and store raise; then call it again."""
        counts = {"documents": 0, "tables": 0}
        if not uploads:
            return counts  # and no answer that is kept goes for nothing
        tenant_id = uploads.tenant_id
        for collection, document_id in uploads.documents:
            with suppress(Missing):
                await self._golden.forget_document(tenant_id, collection, document_id)
                await self._ingest.remove(tenant_id, collection, document_id)
                counts["documents"] += 1
        for collection in {collection for collection, _ in uploads.documents}:
            with suppress(Missing):
                await self._maintenance.optimise(Place(tenant_id, collection))
        for name in uploads.tables:
            with suppress(Missing):
                await self._tables.remove(tenant_id, name, EVERYTHING)
                counts["tables"] += 1
        await self._forget(tenant_id)
        if any(counts.values()):
            async with audited(self._store.database) as journal:
                await journal.note("uploads.removed", by, tenant_id, "", counts)
        return counts
