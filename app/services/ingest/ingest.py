"""Takes documents in: parse, chunk, embed, index, record.

The index is written before the record, each in one commit, and the record's hash is what lets the same content be
skipped. So a crash anywhere leaves the old document or the new one searchable, never a mixture, and the same call again
mends what the crash left. Writers of one document take turns in this process; between processes the last one wins.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from app.names import HANDBOOK, SHARED_TENANT, checked_collection
from app.services.ingest.chunk import Chunk, chunk
from app.services.ingest.describe import checked_document_id, checked_metadata
from app.services.ingest.parse import parse
from graphs.errors import Invalid, Missing, PilothouseError

log = logging.getLogger(__name__)

LIMIT_CHUNKS = 50_000


class Record(Protocol):
    """What is known of a document that was taken in."""

    @property
    def tenant_id(self) -> str: ...
    @property
    def collection(self) -> str: ...
    @property
    def document_id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def media_type(self) -> str: ...
    @property
    def size_bytes(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def chunks(self) -> int: ...
    @property
    def metadata(self) -> Mapping[str, Any]: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def updated_at(self) -> datetime: ...


class Documents(Protocol):
    """Where records and normalised texts are kept; `get` and `delete` raise Missing."""

    async def get(self, tenant_id: str, collection: str, document_id: str) -> Record: ...

    async def delete(self, tenant_id: str, collection: str, document_id: str) -> None: ...

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
    ) -> Record: ...


@dataclass(frozen=True, slots=True)
class Entry:
    """A document as it goes into the index; `vectors` has shape (len(chunks), dimensions)."""

    document_id: str
    title: str
    metadata: Mapping[str, Any]
    chunks: Sequence[Chunk]
    vectors: NDArray[np.float32]


class Library(Protocol):
    """The index. `replace` and `remove` are one commit each."""

    async def replace(self, tenant_id: str, collection: str, entries: Sequence[Entry]) -> None: ...

    async def remove(self, tenant_id: str, collection: str, document_id: str) -> None: ...

    async def count(self, tenant_id: str, collection: str, document_id: str) -> int: ...


class Embedder(Protocol):
    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class TextDocument:
    """A document as a caller's JSON holds it."""

    id: str
    text: str
    title: str = ""
    metadata: Mapping[str, Any] | None = None
    media_type: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one document of a batch; `error` is set where `ok` is False."""

    id: str
    ok: bool
    error: PilothouseError | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """Parsed, chunked and embedded; nothing is written yet."""

    entry: Entry
    media_type: str
    size_bytes: int
    sha256: str
    text: str


class Ingest:
    """The way into collections. `library` must search with the same `embedder`."""

    def __init__(self, library: Library, embedder: Embedder, documents: Documents) -> None:
        self._library = library
        self._embedder = embedder
        self._documents = documents
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    async def add(
        self,
        tenant_id: str,
        collection: str,
        document_id: str,
        source: bytes | str,
        *,
        filename: str = "",
        media_type: str = "",
        title: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> Record:
        """Take in a new document, or a new state of one; the same state again changes nothing.

        An empty title is taken from the document. The shared handbook is not open to callers. Raises Invalid,
        DocumentUnreadable, Conflict (another embedder's collection), and what index and store raise.
        """
        _check(tenant_id, collection, document_id)
        details = checked_metadata(metadata or {})
        async with self._turn(tenant_id, collection, document_id):
            held = await self._unchanged(tenant_id, collection, document_id, source, title, details)
            if held is not None:
                return held
            made = await self._prepare(document_id, source, filename, media_type, title, details)
            await self._library.replace(tenant_id, collection, [made.entry])
            return await self._record(tenant_id, collection, made)

    async def add_batch(self, tenant_id: str, collection: str, documents: Sequence[TextDocument]) -> list[Outcome]:
        """Each by itself, in order: one that cannot be taken in leaves the others alone."""
        return [await self._outcome(tenant_id, collection, document) for document in documents]

    async def remove(self, tenant_id: str, collection: str, document_id: str) -> None:
        """Raises Missing. Once it returns no search finds the document."""
        _check(tenant_id, collection, document_id)
        async with self._turn(tenant_id, collection, document_id):
            # The index first: as long as the record stands, a removal that broke off can be repeated.
            await self._library.remove(tenant_id, collection, document_id)
            await self._documents.delete(tenant_id, collection, document_id)

    async def _outcome(self, tenant_id: str, collection: str, document: TextDocument) -> Outcome:
        try:
            await self.add(
                tenant_id,
                collection,
                document.id,
                document.text,
                title=document.title,
                metadata=document.metadata,
                media_type=document.media_type,
            )
        except PilothouseError as error:
            return Outcome(document.id, ok=False, error=error)
        return Outcome(document.id, ok=True)

    async def _unchanged(
        self,
        tenant_id: str,
        collection: str,
        document_id: str,
        source: bytes | str,
        title: str,
        metadata: Mapping[str, Any],
    ) -> Record | None:
        """The record, if it is of this very content and the index holds all of its chunks."""
        try:
            held = await self._documents.get(tenant_id, collection, document_id)
        except Missing:
            return None
        same = (
            held.sha256 == hashlib.sha256(_bytes(source)).hexdigest()
            and title in {"", held.title}
            and json.dumps(dict(held.metadata), sort_keys=True) == json.dumps(dict(metadata), sort_keys=True)
        )
        # A removal that broke off after the index leaves a record without chunks.
        return held if same and await self._library.count(tenant_id, collection, document_id) == held.chunks else None

    async def _prepare(
        self,
        document_id: str,
        source: bytes | str,
        filename: str,
        media_type: str,
        title: str,
        metadata: Mapping[str, Any],
    ) -> Prepared:
        content = _bytes(source)
        parsed = await parse(source, filename, media_type)
        for note in parsed.notes:
            log.warning("document read in part", extra={"document_id": document_id, "note": note})
        chunks = await asyncio.to_thread(chunk, parsed)
        if len(chunks) > LIMIT_CHUNKS:
            raise Invalid(f"the document gives {len(chunks)} chunks, at most {LIMIT_CHUNKS} are taken", field="file")
        name = title or parsed.title or filename or document_id
        vectors = await self._embedder.embed([_embedded(name, piece) for piece in chunks])
        entry = Entry(document_id, name, metadata, chunks, vectors)
        return Prepared(entry, parsed.media_type, len(content), hashlib.sha256(content).hexdigest(), parsed.text)

    async def _record(self, tenant_id: str, collection: str, made: Prepared) -> Record:
        entry = made.entry
        return await self._documents.upsert(
            tenant_id,
            collection,
            entry.document_id,
            entry.title,
            made.media_type,
            made.size_bytes,
            made.sha256,
            len(entry.chunks),
            entry.metadata,
            made.text,
        )

    def _turn(self, tenant_id: str, collection: str, document_id: str) -> asyncio.Lock:
        return self._turns.setdefault((tenant_id, collection, document_id), asyncio.Lock())


def _embedded(title: str, piece: Chunk) -> str:
    """What a chunk's vector is made from: a paragraph under "Rotation" of "Keys" need not say either word."""
    return "\n".join(part for part in (title, piece.heading, piece.text) if part)


def _bytes(source: bytes | str) -> bytes:
    return source if isinstance(source, bytes) else source.encode("utf-8", "surrogatepass")


def _check(tenant_id: str, collection: str, document_id: str) -> None:
    checked_collection(collection)
    checked_document_id(document_id)
    if collection == HANDBOOK and tenant_id != SHARED_TENANT:
        raise Invalid('the collection "handbook" is the product\'s own and takes no documents', field="collection")
