"""Documents as they were taken in: their normalised text, so that a citation can open it, and what is known of them.

The chunks and vectors are the library's; `chunks` says how many it holds for the document.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from hashlib import sha256 as sha256_of
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, func, or_, select, true, update
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import ReturningInsert
from sqlalchemy.sql.functions import GenericFunction

from app.records import NewDocument
from app.services.store.database import Database
from app.services.store.page import build, columns, page
from app.services.store.records import CollectionRecord, DocumentRecord, Page
from app.services.store.tables import documents
from app.services.store.text import clean
from app.sight import OPEN, Sight
from graphs.errors import Invalid, Missing
from graphs.types import Trust

MAX_ID_CHARS: Final = 512
RECOUNTED: Final = 500  # documents at once, so that other writers get their turn
_COLUMNS = columns(documents, DocumentRecord)
_LASTING: Final = frozenset({"document_key", "tenant_id", "collection", "document_id", "created_at"})


class Documents:
    """A tenant's documents, each known by its collection and the caller's own id."""

    def __init__(self, database: Database) -> None:
        self._db = database

    async def put(self, tenant_id: str, collection: str, new: Sequence[NewDocument]) -> list[DocumentRecord]:
        """Write or replace them in one transaction; `created_at` stays the first one's. Records in the order given.

        Raises Invalid for an empty or longer id, and then writes none.
        """
        if not all(1 <= len(each.document_id) <= MAX_ID_CHARS for each in new):
            raise Invalid(f"a document id has 1 to {MAX_ID_CHARS} characters", field="id")
        now = self._db.clock()

        def write(connection: Connection) -> list[DocumentRecord]:
            rows = (self._row(tenant_id, collection, each, now) for each in new)
            return [build(DocumentRecord, connection.execute(self._upsert(row), row).one()) for row in rows]

        return await self._db.commit(write)

    def _row(self, tenant_id: str, collection: str, new: NewDocument, now: datetime) -> dict[str, Any]:
        row = {field.name: getattr(new, field.name) for field in fields(new)}
        if new.allow_groups is None:
            del row["allow_groups"]
        key = _key(tenant_id, collection, new.document_id)
        place = {"document_key": key, "tenant_id": tenant_id, "collection": collection}
        return row | place | {"created_at": now, "updated_at": now}

    def _upsert(self, columns: Collection[str]) -> ReturningInsert[Any]:
        """For rows of these columns; all but `_LASTING` are overwritten."""
        insert = self._db.insert(documents)
        change = {name: insert.excluded[name] for name in columns if name not in _LASTING}
        return insert.on_conflict_do_update(index_elements=["document_key"], set_=change).returning(*_COLUMNS)

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

    async def recount(self, tenant_id: str, collection: str, chunks: Mapping[str, int]) -> None:
        """Write down how many chunks the index holds of each of these documents; ones that are not there are left."""
        held = select(documents.c.document_id, documents.c.chunks)
        held = held.where(documents.c.tenant_id == tenant_id, documents.c.collection == collection)
        async with self._db.read() as connection:
            rows = list(await connection.execute(held))
        changed = [
            {"of_key": _key(tenant_id, collection, name), "now": chunks[name]}
            for name, count in rows
            if chunks.get(name, count) != count
        ]
        statement = update(documents).where(documents.c.document_key == bindparam("of_key"))
        for first in range(0, len(changed), RECOUNTED):
            async with self._db.write() as connection:
                await connection.execute(statement.values(chunks=bindparam("now")), changed[first : first + RECOUNTED])

    async def get(self, tenant_id: str, collection: str, document_id: str, sight: Sight = OPEN) -> DocumentRecord:
        """Raises Missing, for one that is hidden as for one that is not there."""
        query = select(*_COLUMNS).where(_the(tenant_id, collection, document_id), _seen(sight))
        async with self._db.read() as connection:
            row = (await connection.execute(query)).first()
        if row is None:
            raise Missing("no such document")
        return build(DocumentRecord, row)

    async def held(
        self, tenant_id: str, collection: str, document_ids: Collection[str]
    ) -> Mapping[str, DocumentRecord]:
        """Those of them that are there, by id, whoever may see them."""
        keys = [_key(tenant_id, collection, document_id) for document_id in document_ids]
        query = select(*_COLUMNS).where(documents.c.document_key.in_(keys), documents.c.tenant_id == tenant_id)
        async with self._db.read() as connection:
            return {row.document_id: build(DocumentRecord, row) for row in await connection.execute(query)}

    async def find(self, tenant_id: str, document_id: str, sight: Sight = OPEN) -> list[DocumentRecord]:
        """The documents with this id in any collection of the tenant, oldest first; empty if there is none."""
        query = select(*_COLUMNS).where(documents.c.tenant_id == tenant_id, documents.c.document_id == document_id)
        query = query.where(_seen(sight))
        async with self._db.read() as connection:
            rows = await connection.execute(query.order_by(documents.c.created_at, documents.c.document_key))
            return [build(DocumentRecord, row) for row in rows]

    async def uploaded(self, tenant_id: str, user_id: str | None) -> Sequence[tuple[str, str]]:
        """Collection and id of all that a user wrote last; with None, of all whose writer nobody knows."""
        return await self._named(
            documents.c.tenant_id == tenant_id, documents.c.uploaded_by.is_not_distinct_from(user_id)
        )

    async def written_before(self, tenant_id: str, moment: datetime) -> Sequence[tuple[str, str]]:
        """Likewise of all that were last written before then."""
        return await self._named(documents.c.tenant_id == tenant_id, documents.c.updated_at < moment)

    async def _named(self, *where: ColumnElement[bool]) -> Sequence[tuple[str, str]]:
        query = select(documents.c.collection, documents.c.document_id).where(*where)
        async with self._db.read() as connection:
            return [(row.collection, row.document_id) for row in await connection.execute(query)]

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
