"""Takes documents in: parse, chunk, embed, index, record.

The index is written before the record, each in one commit, and both say which source they were made from. So a crash
anywhere leaves the old document or the new one searchable, never a mixture, and the next call mends what it left. Calls
for one document take turns in this process; what two processes do to one document at once, the next call mends too.
"""

import asyncio
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import PurePath
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from app.names import HANDBOOK, SHARED_TENANT, checked_collection
from app.records import NewDocument
from app.services.ingest.chunk import Chunk, Chunking, chunk
from app.services.ingest.describe import checked_document_id, checked_metadata
from app.services.ingest.document import normalise
from app.services.ingest.kept import written
from app.services.ingest.parse import parse
from app.services.ingest.ports import Documents, Entry, Happened, Library, Progress, Record, Report
from app.services.ingest.watch import Watch, silent
from app.sight import MAX_DOCUMENT_GROUPS, OPEN, Sight, checked_groups
from graphs.errors import DocumentTaken, Invalid, PilothouseError
from graphs.types import Trust

__all__ = ["Ingest", "Outcome", "Progress", "Record", "Source"]

log = logging.getLogger(__name__)

PIPELINE = 3  # one more whenever the same source would be parsed to something else; documents are then taken in anew
LIMIT_CHUNKS = 50_000
LIMIT_TITLE_CHARS = 512
PARSERS = 2  # child processes at once
GROUP = 64  # documents of a batch that are embedded together and committed at once


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it arrives. An empty title is taken from the document, then from the file's name, then the id.

    `allow_groups` are those whom it is for, none for everyone of the tenant; None leaves it to those whom it was for.
    """

    id: str
    content: bytes | str
    filename: str = ""
    media_type: str = ""
    title: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    allow_groups: Sequence[str] | None = None
    trust: Trust = "untrusted"
    uploaded_by: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one source of a batch: its record, or why it was not taken in."""

    id: str
    happened: Happened
    record: Record | None = None
    error: PilothouseError | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    @property
    def progress(self) -> Progress:
        chunks = self.record.chunks if self.record else 0
        return Progress(self.id, None, 0.0, chunks, self.happened, self.error.message if self.error else "")


@dataclass(frozen=True, slots=True)
class Prepared:
    """Parsed and chunked; nothing is written yet. `known` says that an earlier state has a record."""

    document: NewDocument
    known: bool
    chunks: Sequence[Chunk]
    state: str
    allow_groups: tuple[str, ...]

    def entry(self, vectors: NDArray[np.float32]) -> Entry:
        new = self.document
        return Entry(
            new.document_id, new.title, new.metadata, self.chunks, self.state, vectors, self.allow_groups, new.trust
        )


class Ingest:
    """The way into collections, each of which says how its documents are cut and embedded."""

    def __init__(self, library: Library[Any], documents: Documents) -> None:
        self._library = library
        self._documents = documents
        self._parsing = asyncio.Semaphore(PARSERS)
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
        allow_groups: Sequence[str] | None = None,
        trust: Trust = "untrusted",
        uploaded_by: str | None = None,
        sight: Sight = OPEN,
    ) -> Record:
        """Take in a new document, or a new state of one; the same state again changes nothing.

        Raises Invalid, DocumentUnreadable, DocumentTaken, Conflict (another embedder's collection), and what index and
        store raise.
        """
        told = (filename, media_type, title, metadata or {}, allow_groups, trust, uploaded_by)
        sources = [Source(document_id, source, *told)]
        (outcome,) = await self.add_batch(tenant_id, collection, sources, sight=sight)
        if outcome.record is None:
            raise outcome.error or AssertionError("an outcome has a record or an error")
        return outcome.record

    async def add_batch(
        self,
        tenant_id: str,
        collection: str,
        sources: Sequence[Source],
        report: Report = silent,
        *,
        sight: Sight = OPEN,
    ) -> list[Outcome]:
        """Outcomes in the order given: a source that cannot be taken in leaves the others alone.

        Each document's stages and its end are told to `report` as they come. `sight` is that of whoever writes: they
        see what they have written, and write over nothing that they do not see.

        Raises Invalid for the collection's name (the shared handbook is closed to callers), Conflict, and what index
        and store raise; the outcomes before that stay, and the same call again goes on from there.
        """
        _check_collection(tenant_id, collection)
        outcomes: list[Outcome] = []
        for group in _groups(sources):
            async with AsyncExitStack() as turns:
                # Sorted, so that two batches cannot wait for each other.
                for document_id in sorted(source.id for source in group):
                    await turns.enter_async_context(self._turn(tenant_id, collection, document_id))
                while (taken := await self._take_in(tenant_id, collection, group, report, sight)) is None:
                    log.info(
                        "a collection was made anew; its documents are cut again", extra={"collection": collection}
                    )
                outcomes += taken
        return outcomes

    async def regroup(
        self, tenant_id: str, collection: str, document_id: str, allow_groups: Sequence[str], sight: Sight = OPEN
    ) -> Record:
        """Say anew whom a document is for. Raises Missing, Invalid. Once it returns every search goes by it."""
        _check_collection(tenant_id, collection)
        async with self._turn(tenant_id, collection, document_id):
            held = await self._documents.get(tenant_id, collection, document_id, sight)
            return await self._relabel(held, _groups_of(allow_groups, held, sight), held.trust)

    async def remove(self, tenant_id: str, collection: str, document_id: str, sight: Sight = OPEN) -> None:
        """Raises Missing. Once it returns no search finds the document."""
        _check_collection(tenant_id, collection)
        async with self._turn(tenant_id, collection, document_id):
            await self._documents.get(tenant_id, collection, document_id, sight)
            # The index first: as long as the record stands, a removal that broke off can be repeated.
            await self._library.remove(tenant_id, collection, document_id)
            await self._documents.delete(tenant_id, collection, document_id)

    async def _take_in(
        self, tenant_id: str, collection: str, sources: Sequence[Source], report: Report, sight: Sight
    ) -> list[Outcome] | None:
        """One commit of the index and one of the store for all that can be read: 26 pages took 0.7 s so, and 10 s one
        by one.

        None where another build was promoted meanwhile, whose chunks or vectors are other ones.
        """
        recipe = await self._library.recipe(tenant_id, collection)
        looked = await self._look(tenant_id, collection, sources, Chunking.parsed(recipe.chunker), report, sight)
        ready = [made for made in looked if isinstance(made, Prepared)]
        sizes = {made.document.document_id: len(made.chunks) for made in ready}
        watch = Watch(report)
        texts = [_embedded(made.document.title, piece) for made in ready for piece in made.chunks]
        vectors = await self._library.embed(tenant_id, collection, recipe, texts)
        watch.passed("embed", sizes)
        ends = accumulate(sizes.values())
        entries = [made.entry(vectors[end - len(made.chunks) : end]) for made, end in zip(ready, ends, strict=True)]
        if not await self._library.replace(tenant_id, collection, entries, recipe):
            return None
        watch.passed("index", sizes)
        done = iter(await self._written_down(tenant_id, collection, ready, report))
        return [next(done) if isinstance(made, Prepared) else made for made in looked]

    async def _look(
        self, tenant_id: str, collection: str, sources: Sequence[Source], by: Chunking, report: Report, sight: Sight
    ) -> list[Prepared | Outcome]:
        """For each what is to be written, or the outcome already: an error, or the record of the very same state."""
        held = await self._documents.held(tenant_id, collection, [source.id for source in sources])
        # The index is asked too: a crash between the two writes leaves a record that no longer speaks for it.
        same = [source.id for source in sources if source.id in held and held[source.id].sha256 == _sha256(source)]
        indexed = await self._library.states(tenant_id, collection, same)
        looked = dict[str, Prepared | Outcome]()
        # Those first that are there already: what was read of them is old by the time that others are parsed.
        for source in sorted(sources, key=lambda source: source.id not in indexed):
            states = set(indexed.get(source.id, ()))
            made = await self._look_at(source, held.get(source.id), states, by, report, sight)
            if isinstance(made, Outcome):
                report(made.progress)
            looked[source.id] = made
        return [looked[source.id] for source in sources]

    async def _look_at(
        self, source: Source, held: Record | None, indexed: Set[str], by: Chunking, report: Report, sight: Sight
    ) -> Prepared | Outcome:
        try:
            checked_document_id(source.id)
            metadata = checked_metadata(source.metadata)
            state = self._state(source, metadata)
            groups = _groups_of(source.allow_groups, held, sight)
            if held and indexed == {state}:
                if (tuple(held.allow_groups), held.trust) == (groups, source.trust):
                    return Outcome(source.id, "unchanged", held)
                return Outcome(source.id, "replaced", await self._relabel(held, groups, source.trust))
            return await self._prepare(source, metadata, state, groups, held is not None, by, Watch(report))
        except (Invalid, DocumentTaken) as error:
            return Outcome(source.id, "failed", error=error)

    async def _prepare(
        self,
        source: Source,
        metadata: Mapping[str, Any],
        state: str,
        groups: tuple[str, ...],
        known: bool,
        by: Chunking,
        watch: Watch,
    ) -> Prepared:
        parsed = await parse(source.content, source.filename, source.media_type, turns=self._parsing)
        for note in parsed.notes:
            log.warning("document read in part", extra={"document_id": source.id, "note": note})
        watch.passed("parse", {source.id: 0})
        chunks = await asyncio.to_thread(chunk, parsed, by)
        if len(chunks) > LIMIT_CHUNKS:
            raise Invalid(f"the document gives {len(chunks)} chunks, at most {LIMIT_CHUNKS} are taken", field="file")
        watch.passed("chunk", {source.id: len(chunks)})
        document = NewDocument(
            document_id=source.id,
            title=_line(source.title) or _line(parsed.title) or _line(PurePath(source.filename).name) or source.id,
            media_type=parsed.media_type,
            size_bytes=len(_bytes(source)),
            sha256=_sha256(source),
            chunks=len(chunks),
            metadata=metadata,
            text=parsed.text,
            structure=written(parsed),
            allow_groups=None if known and source.allow_groups is None else groups,
            trust=source.trust,
            uploaded_by=source.uploaded_by,
        )
        return Prepared(document, known, chunks, state, groups)

    async def _written_down(
        self, tenant_id: str, collection: str, ready: Sequence[Prepared], report: Report
    ) -> list[Outcome]:
        records = await self._documents.put(tenant_id, collection, [made.document for made in ready]) if ready else []
        outcomes = list[Outcome]()
        for made, record in zip(ready, records, strict=True):
            if tuple(record.allow_groups) != made.allow_groups:
                # Another process said anew whom it is for while this one read it; what it wrote down counts.
                groups = record.allow_groups
                await self._library.relabel(tenant_id, collection, record.document_id, groups, record.trust)
            outcomes.append(Outcome(record.document_id, "replaced" if made.known else "added", record))
            report(outcomes[-1].progress)
        return outcomes

    async def _relabel(self, held: Record, groups: Sequence[str], trust: Trust) -> Record:
        """The record first: an ingest in another process, which keeps the groups that it finds, looks there last."""
        name = (held.tenant_id, held.collection, held.document_id)
        record = await self._documents.relabel(*name, groups, trust)
        await self._library.relabel(*name, groups, trust)
        return record

    def _state(self, source: Source, metadata: Mapping[str, Any]) -> str:
        """A digest of all that decides what a document is. How it is cut and embedded is its collection's."""
        told = [PIPELINE, _sha256(source), source.filename, source.media_type, source.title, metadata]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]

    def _turn(self, tenant_id: str, collection: str, document_id: str) -> asyncio.Lock:
        return self._turns.setdefault((tenant_id, collection, document_id), asyncio.Lock())


def _groups(sources: Sequence[Source]) -> Iterator[list[Source]]:
    """Up to GROUP at a time, each id once: a document that comes twice is taken in twice, in order."""
    group: dict[str, Source] = {}
    for source in sources:
        if len(group) == GROUP or source.id in group:
            yield list(group.values())
            group = {}
        group[source.id] = source
    if group:
        yield list(group.values())


def _groups_of(asked: Sequence[str] | None, held: Record | None, sight: Sight) -> tuple[str, ...]:
    """Whom a document is for from now on.

    Raises DocumentTaken where its writer does not see what is there, Invalid where they would not see it any more.
    """
    if held is not None and not sight.sees(held.allow_groups):
        raise DocumentTaken("the id is taken by a document that this credential may not change", field="id")
    if asked is None:
        return () if held is None else tuple(held.allow_groups)
    groups = checked_groups(asked, MAX_DOCUMENT_GROUPS, "allowGroups")
    if not sight.sees(groups):
        raise Invalid("who writes a document is in one of the groups that it is for", field="allowGroups")
    return groups


def _embedded(title: str, piece: Chunk) -> str:
    """What a chunk's vector is made from: a paragraph under "Rotation" of "Keys" need not say either word."""
    return "\n".join(part for part in (title, piece.heading, piece.text) if part)


def _line(text: str) -> str:
    """A title as one line of at most LIMIT_TITLE_CHARS."""
    return " ".join(normalise(text).split())[:LIMIT_TITLE_CHARS]


def _bytes(source: Source) -> bytes:
    return source.content if isinstance(source.content, bytes) else source.content.encode("utf-8", "surrogatepass")


def _sha256(source: Source) -> str:
    return hashlib.sha256(_bytes(source)).hexdigest()


def _check_collection(tenant_id: str, collection: str) -> None:
    checked_collection(collection)
    if collection == HANDBOOK and tenant_id != SHARED_TENANT:
        raise Invalid('the collection "handbook" is the product\'s own and takes no documents', field="collection")
