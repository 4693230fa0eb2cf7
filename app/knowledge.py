"""What a caller may see of the collections and do to them, by the rules of the API.

The tenant comes from the credential. The scope `documents` reads and writes, `chat` reads; the handbook is everybody's
to read and nobody's to write.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from app.jobs.collections import REBUILD
from app.names import HANDBOOK, SHARED_TENANT, checked_collection
from app.records import Principal
from app.services.ingest.chunk import Chunking
from app.services.jobs.ports import JobRequest, JobState
from app.services.retrieval.filters import facets
from app.services.retrieval.gate import Report, Thresholds
from app.services.retrieval.history import History
from app.services.retrieval.history import history as history_of
from app.services.retrieval.look import Found
from app.services.retrieval.query import Query
from app.services.store.records import CollectionRecord, DocumentRecord, Page
from graphs.errors import Forbidden, PilothouseError

if TYPE_CHECKING:
    from app.workbench import Workbench

VERSIONS_SHOWN: Final = 25
LOOKED_AT: Final = 200  # the newest documents, whose metadata a filter is offered from


@dataclass(frozen=True, slots=True)
class Collection:
    """`shared` is read by all tenants and written by none of them."""

    name: str
    documents: int
    chunks: int
    size_bytes: int
    updated_at: datetime
    shared: bool


@dataclass(frozen=True, slots=True)
class Index:
    """The index behind a collection: its version and embedder, or the trouble that keeps it from being searched."""

    version: str = ""
    embedder: str = ""
    trouble: PilothouseError | None = None


async def collections(bench: "Workbench", who: Principal) -> list[Collection]:
    """The tenant's own by name, then the handbook. Raises Forbidden, StoreUnavailable."""
    _check_reader(who)
    own = await bench.store.documents.collections(who.tenant_id, who.sight)
    shared = await bench.store.documents.collections(SHARED_TENANT)
    return [
        *(_collection(record, False) for record in own),
        *(_collection(record, True) for record in shared),
    ]


async def index_of(bench: "Workbench", who: Principal, collection: str) -> Index:
    """Raises Forbidden. An index that cannot be searched is an answer, not an error."""
    _check_reader(who)
    try:
        version = await bench.library.version(home_of(who, collection), collection)
        made_by = (await bench.library.recipe(home_of(who, collection), collection)).embedder
    except PilothouseError as error:
        return Index(trouble=error)
    return Index(version, bench.library.embedders.id_of(made_by) or made_by)


async def documents(
    bench: "Workbench", who: Principal, collection: str, text: str, limit: int, cursor: str | None
) -> Page[DocumentRecord]:
    """Newest first; `text` is a part of title or id, empty for all. Raises Forbidden, Invalid."""
    _check_reader(who)
    return await bench.store.documents.list(
        home_of(who, collection), collection, limit, cursor, text=text or None, sight=who.sight
    )


async def document(bench: "Workbench", who: Principal, collection: str, document_id: str) -> tuple[DocumentRecord, str]:
    """The record and the text that offsets count in. Raises Forbidden, Missing."""
    _check_reader(who)
    home = home_of(who, collection)
    record = await bench.store.documents.get(home, collection, document_id, who.sight)
    return record, await bench.store.documents.text(home, collection, document_id, who.sight)


async def fields(bench: "Workbench", who: Principal, collection: str) -> Mapping[str, tuple[Any, ...]]:
    """Metadata that a filter can name, by its key, with the values that the newest documents have. Raises Forbidden."""
    page = await documents(bench, who, collection, "", LOOKED_AT, None)
    found: dict[str, dict[str, Any]] = {}
    for record in page.items:
        for facet in facets(record.metadata):
            key = facet.partition("=")[0]
            found.setdefault(key, {})[facet] = record.metadata[key]
    return {key: tuple(found[key].values()) for key in sorted(found)}


async def versions(bench: "Workbench", who: Principal, collection: str) -> list[str]:
    """The newest VERSIONS_SHOWN by their names; none of an index that cannot be read. Raises Forbidden."""
    _check_reader(who)
    try:
        held = await bench.library.versions(home_of(who, collection), collection)
    except PilothouseError:
        return []  # `index_of` tells why
    return [version.label for version in held[:VERSIONS_SHOWN]]


async def search(bench: "Workbench", who: Principal, collection: str, query: Query, as_of: str | None = None) -> Found:
    """Raises Forbidden, Missing, VersionGone, Invalid, IndexFailed."""
    _check_reader(who)
    return await bench.library.look(home_of(who, collection), checked_collection(collection), query, as_of, who.sight)


async def history(bench: "Workbench", who: Principal, collection: str) -> History:
    """What a search can be asked "as of", the newest VERSIONS_SHOWN. Raises Forbidden, Missing, IndexFailed."""
    _check_reader(who)
    home = home_of(who, collection)
    return await history_of(bench.library, home, checked_collection(collection), VERSIONS_SHOWN, who.sight)


async def promote(bench: "Workbench", who: Principal, collection: str) -> Report:
    """Judge the build that waits, and let it answer if it passes. Raises Forbidden, Missing, Conflict, IndexFailed."""
    _check_writer(who, collection)
    return await bench.builds.promote(who.tenant_id, checked_collection(collection), Thresholds())


async def roll_back(bench: "Workbench", who: Principal, collection: str) -> str:
    """The version that answers from now on. Raises Forbidden, Missing, Conflict, IndexFailed."""
    _check_writer(who, collection)
    return await bench.builds.roll_back(who.tenant_id, checked_collection(collection))


async def rebuild(
    bench: "Workbench", who: Principal, collection: str, chunking: Chunking | None = None, *, keep: bool = False
) -> JobState:
    """The job that makes the collection anew, cut as it is where `chunking` is None, and lets the gate judge it unless
    it is to `keep` the build waiting. Raises Forbidden, Invalid."""
    _check_writer(who, collection)
    told = {
        "collection": checked_collection(collection),
        "chunker": None if chunking is None else str(chunking),
        "embedder": None,
        "keep": keep,
        "bounds": asdict(Thresholds()),
    }
    return await bench.jobs.submit(JobRequest(who, REBUILD, told))


async def remove(bench: "Workbench", who: Principal, collection: str, document_id: str) -> None:
    """Its text, chunks and vectors, and the tenant's kept answers, which may quote it. Raises Forbidden, Missing."""
    _check_writer(who, collection)
    await bench.ingest.remove(who.tenant_id, checked_collection(collection), document_id, who.sight)
    await bench.golden.forget_document(who.tenant_id, collection, document_id)
    await bench.gateway.forget(who.tenant_id)


async def regroup(
    bench: "Workbench", who: Principal, collection: str, document_id: str, allow_groups: Sequence[str]
) -> None:
    """Whom the document is for from now on; answers kept for others are dropped. Raises Forbidden, Missing, Invalid."""
    _check_writer(who, collection)
    await bench.ingest.regroup(who.tenant_id, checked_collection(collection), document_id, allow_groups, who.sight)
    await bench.gateway.forget(who.tenant_id)


def _check_writer(who: Principal, collection: str) -> None:
    if not may_write(who, collection):
        raise Forbidden(f"this credential may not change the collection {collection}")


def may_write(who: Principal, collection: str) -> bool:
    return who.may("documents") and collection != HANDBOOK


def home_of(who: Principal, collection: str) -> str:
    """The tenant whose collection is meant."""
    return SHARED_TENANT if collection == HANDBOOK else who.tenant_id


def _collection(record: CollectionRecord, shared: bool) -> Collection:
    return Collection(
        record.name,
        record.documents,
        record.chunks,
        record.size_bytes,
        record.updated_at,
        shared or record.name == HANDBOOK,
    )


def _check_reader(who: Principal) -> None:
    if not (who.may("documents") or who.may("chat")):
        raise Forbidden("this credential lacks the scope documents or chat")
