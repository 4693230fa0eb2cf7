"""Documents as they were taken in: their normalised text, so that a citation can open it, and what is known of them.

The chunks and vectors are the library's; `chunks` says how many it holds for the document.
"""

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256 as sha256_of
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, func, or_, select, true, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from app.services.store.database import Database
from app.services.store.page import build, columns, page
from app.services.store.records import CollectionRecord, DocumentRecord, Page
from app.services.store.tables import documents
from app.services.store.text import clean
from app.sight import OPEN, Sight
from graphs.errors import Invalid, Missing
from graphs.types import Trust

MAX_ID_CHARS: Final = 512
_COLUMNS = columns(documents, DocumentRecord)


class Documents:
    """A tenant's documents, each known by its collection and the caller's own id."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def upsert(
        self,
        tenant_id: str,
        collection: str,
        document_id: str,
        title: str,
        media_type: str,
        size_bytes: int,
        sha256: str,
        chunks: int,
        metadata: Mapping[str, Any],
        text: str,
        structure: str = "",
        *,
        allow_groups: Sequence[str] | None = (),
        trust: Trust = "untrusted",
    ) -> DocumentRecord:
        """Write or replace it; `created_at` stays the first one's, and `allow_groups` None leaves what there is.

        Raises Invalid for an empty or longer id.
        """
        if not 1 <= len(document_id) <= MAX_ID_CHARS:
            raise Invalid(f"a document id has 1 to {MAX_ID_CHARS} characters", field="id")
        now = self._db.clock()
        content = {
            "title": title,
            "media_type": media_type,
            "size_bytes": size_bytes,
            "sha256": sha256,
            "chunks": chunks,
            "metadata": metadata,
            "trust": trust,
            "text": text,
            "structure": structure,
            "updated_at": now,
        }
        if allow_groups is not None:
            content["allow_groups"] = allow_groups
        identity = {
            "document_key": _key(tenant_id, collection, document_id),
            "tenant_id": tenant_id,
            "collection": collection,
            "document_id": document_id,
            "created_at": now,
        }
        upsert = self._db.insert(documents).values(identity | content)
        statement = upsert.on_conflict_do_update(index_elements=["document_key"], set_=content).returning(*_COLUMNS)
        async with self._db.write() as connection:
            return build(DocumentRecord, (await connection.execute(statement)).one())

    async def relabel(
        self, tenant_id: str, collection: str, document_id: str, allow_groups: Sequence[str], trust: Trust
    ) -> DocumentRecord:
        """Say anew whom it is for and where it came from. Raises Missing."""
        change = update(documents).where(_the(tenant_id, collection, document_id))
        statement = change.values(allow_groups=allow_groups, trust=trust).returning(*_COLUMNS)
        async with self._db.write() as connection:
            row = (await connection.execute(statement)).first()
        if row is None:
            raise Missing("no such document")
        return build(DocumentRecord, row)

    async def get(self, tenant_id: str, collection: str, document_id: str, sight: Sight = OPEN) -> DocumentRecord:
        """Raises Missing, for one that is hidden as for one that is not there."""
        query = select(*_COLUMNS).where(_the(tenant_id, collection, document_id), _seen(sight))
        async with self._db.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise Missing("no such document")
        return build(DocumentRecord, row)

    async def find(self, tenant_id: str, document_id: str, sight: Sight = OPEN) -> list[DocumentRecord]:
        """The documents with this id in any collection of the tenant, oldest first; empty if there is none."""
        query = select(*_COLUMNS).where(documents.c.tenant_id == tenant_id, documents.c.document_id == document_id)
        query = query.where(_seen(sight))
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(documents.c.created_at, documents.c.document_key))
            return [build(DocumentRecord, row) for row in rows]

    async def text(self, tenant_id: str, collection: str, document_id: str, sight: Sight = OPEN) -> str:
        """The normalised text that offsets of passages and citations count in. Raises Missing."""
        query = select(documents.c.text).where(_the(tenant_id, collection, document_id), _seen(sight))
        async with self._db.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise Missing("no such document")
        return str(row.text)

    async def content(self, tenant_id: str, collection: str, document_id: str) -> tuple[str, str]:
        """The text and its structure, as the ingest wrote it; empty for one from before. Raises Missing."""
        query = select(documents.c.text, documents.c.structure).where(_the(tenant_id, collection, document_id))
        async with self._db.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise Missing("no such document")
        return str(row.text), str(row.structure)

    async def delete(self, tenant_id: str, collection: str, document_id: str) -> None:
        """Raises Missing."""
        gone = delete(documents).where(_the(tenant_id, collection, document_id))
        async with self._db.write() as connection:
            if (await connection.execute(gone)).rowcount == 0:
                raise Missing("no such document")

    async def collections(self, tenant_id: str, sight: Sight = OPEN) -> list[CollectionRecord]:
        """The collections that hold documents which are seen, by name; the others count for nothing."""
        query = (
            select(
                documents.c.collection,
                func.count(),
                func.coalesce(func.sum(documents.c.chunks), 0),
                func.coalesce(func.sum(documents.c.size_bytes), 0),
                func.max(documents.c.updated_at),
            )
            .where(documents.c.tenant_id == tenant_id, _seen(sight))
            .group_by(documents.c.collection)
            .order_by(documents.c.collection)
        )
        async with self._db.read() as connection:
            return [
                CollectionRecord(name, count, int(chunks), int(size_bytes), updated_at)
                for name, count, chunks, size_bytes, updated_at in await connection.execute(query)
            ]

    # Last: from here on `list` is this method.
    async def list(
        self,
        tenant_id: str,
        collection: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
        *,
        text: str | None = None,
        sight: Sight = OPEN,
    ) -> Page[DocumentRecord]:
        """Newest first; `text` is a part of the title or the id, in any case. Raises Invalid for limit or cursor."""
        query = select(*_COLUMNS).where(documents.c.tenant_id == tenant_id, _seen(sight))
        if collection is not None:
            query = query.where(documents.c.collection == collection)
        if text is not None:
            title, name = documents.c.title, documents.c.document_id
            query = query.where(title.icontains(text, autoescape=True) | name.icontains(text, autoescape=True))
        position = (documents.c.created_at, documents.c.document_key)
        async with self._db.read() as connection:
            return await page(connection, query, DocumentRecord, position, limit, cursor)


class _Members(GenericFunction[Any]):
    """The members of a JSON list as rows of a column `value`."""

    name = "json_each"
    inherit_cache = True


@compiles(_Members, "postgresql")
def _members(members: _Members, compiler: SQLCompiler, **given: Any) -> str:
    return f"json_array_elements_text({compiler.process(members.clauses, **given)})"


def _seen(sight: Sight) -> ColumnElement[bool]:
    """Of every statement that reads: the documents for everyone, and those for one of these groups."""
    if sight.everything:
        return true()
    for_everyone = func.json_array_length(documents.c.allow_groups) == 0
    if not sight.groups:
        return for_everyone
    members = _Members(documents.c.allow_groups).table_valued("value")
    mine = select(members.c.value).where(members.c.value.in_(sorted(sight.groups))).correlate(documents)
    return or_(for_everyone, mine.exists())


def _key(tenant_id: str, collection: str, document_id: str) -> str:
    parts = [clean(part) for part in (tenant_id, collection, document_id)]
    return sha256_of(json.dumps(parts).encode()).hexdigest()


def _the(tenant_id: str, collection: str, document_id: str) -> ColumnElement[bool]:
    here = documents.c.document_key == _key(tenant_id, collection, document_id)
    return here & (documents.c.tenant_id == tenant_id)
