"""A collection's versions with what each of them changed, and what became of its builds."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import zip_longest
from typing import Any, Final, Literal, get_args

from app.services.retrieval.commit import IndexFailed
from app.services.retrieval.journal import Beside, Event, Standing, Why, standing
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.shelf import Snapshot
from app.services.retrieval.versions import Version, label, parsed
from app.sight import OPEN, Sight
from graphs.errors import Conflict, Missing

Role = Literal["live"] | Beside

READ_ROWS: Final = 20_000  # of a version that is compared document by document; reading their ids took LanceDB 10 ms
READ_VERSIONS: Final = 40


@dataclass(frozen=True, slots=True)
class Held:
    """What a reader sees of a version: documents by id, with the digest of the state that each was written with."""

    documents: Mapping[str, str]
    chunks: int


@dataclass(frozen=True, slots=True)
class Change:
    """A version beside the one before it in its build: documents that came, were replaced, and went.

    They are None where comparing would take too long, and `gained` is the difference in chunks then as well; None for
    the first that is held of a build. Documents that are kept from the reader count for nothing: `chunks` is None where
    they cannot be told apart, and `size_bytes` where there are any.
    """

    version: Version
    role: Role
    documents: int | None
    chunks: int | None
    size_bytes: int | None
    added: int | None = None
    replaced: int | None = None
    removed: int | None = None
    gained: int | None = None

    @property
    def nothing(self) -> bool:
        """Whether files were joined or indexed, and no more."""
        return (self.added, self.replaced, self.removed) == (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Dropped:
    """A build beside the live one is gone though nobody asked for that."""

    at: datetime
    build: Beside
    why: Why


@dataclass(frozen=True, slots=True)
class History:
    """Versions and events newest first, and builds that were dropped.

    `erased` names, by build, the first version that no longer held erased text; `waiting` and `before` the newest
    version of the build that may be promoted and of the one to go back to, if any.
    """

    changes: Sequence[Change]
    events: Sequence[Event]
    dropped: Sequence[Dropped]
    erased: Mapping[str, str]
    waiting: str
    before: str


async def history(library: Library, tenant_id: str, collection: str, limit: int, sight: Sight = OPEN) -> History:
    """The newest `limit` versions that changed something that is seen, and the newest of each build. Raises Missing,
    and what a search raises."""
    place = Place(tenant_id, collection)
    hidden = await library.hidden(tenant_id, collection, sight)
    versions = await library.versions(tenant_id, collection)
    stands, events = await library.shelf.standing(place), await library.shelf.events(place)
    found = list[Change]()
    for build, role in _roles(stands).items():
        mine = [each for each in versions if parsed(each.label, collection)[0] == build]
        found += await _changes(library, place, mine[:READ_VERSIONS], role, limit, hidden)
    found.sort(key=lambda change: change.version.committed_at, reverse=True)
    return History(
        found[:limit],
        events[::-1],
        _dropped(events),
        {build: label(collection, build, stands.floors[build]) for build in stands.held if build in stands.floors},
        waiting=_newest(versions, collection, stands.candidate) if stands.complete else "",
        before=_newest(versions, collection, stands.standby),
    )


async def _changes(
    library: Library, place: Place, versions: Sequence[Version], role: Role, limit: int, hidden: Collection[str]
) -> list[Change]:
    """Of one build, whose versions are given newest first."""
    found = list[Change]()
    held = await _held(library, place, versions[0], hidden) if versions else None
    for version, earlier in zip_longest(versions, versions[1:]):
        before = None if earlier is None else await _held(library, place, earlier, hidden)
        change = _change(version, role, held, earlier, before, kept_back=bool(hidden))
        if not found or not change.nothing:
            found.append(change)
        held = before
        if len(found) == limit:
            break
    return found


def _change(
    version: Version, role: Role, held: Held | None, earlier: Version | None, before: Held | None, *, kept_back: bool
) -> Change:
    chunks = _chunks(version, held, kept_back)
    chunks_before = None if earlier is None else _chunks(earlier, before, kept_back)
    gained = None if chunks is None or chunks_before is None else chunks - chunks_before
    size_bytes = None if kept_back else version.size_bytes
    if held is None or before is None:
        documents = None if held is None else len(held.documents)
        return Change(version, role, documents, chunks, size_bytes, gained=gained)
    now, then = held.documents, before.documents
    return Change(
        version,
        role,
        len(now),
        chunks,
        size_bytes,
        added=len(now.keys() - then.keys()),
        replaced=sum(state != then.get(name, state) for name, state in now.items()),
        removed=len(then.keys() - now.keys()),
        gained=gained,
    )


def _chunks(version: Version, held: Held | None, kept_back: bool) -> int | None:
    if held is not None:
        return held.chunks
    return None if kept_back else version.rows


def _dropped(events: Sequence[Event]) -> list[Dropped]:
    """From the journal, oldest first: what each build was there for is what the rows before say."""
    found = list[Dropped]()
    for number, event in enumerate(events):
        why = next((name for name in get_args(Why) if name == event.note), None)
        if event.happening == "discarded" and why is not None:
            found.append(Dropped(event.at, standing(events[:number]).beside.get(event.build, "before"), why))
    return found


def _roles(stands: Standing) -> dict[str, Role]:
    return {stands.live: "live", **stands.beside}


def _newest(versions: Sequence[Version], collection: str, build: str | None) -> str:
    return next((each.label for each in versions if parsed(each.label, collection)[0] == build), "")


async def _held(library: Library, place: Place, version: Version, hidden: Collection[str]) -> Held | None:
    """None where reading would take too long, or is not possible."""

    async def documents(snapshot: Snapshot) -> Any:
        return await snapshot.table.query().select(["document_id", "state"]).to_arrow()

    if version.rows > READ_ROWS:
        return None
    try:
        found, _ = await library.shelf.read(place, documents, version.label)
    except (Missing, Conflict, IndexFailed):
        return None  # it was cleaned up between the two looks, or is another embedder's
    rows = zip(found["document_id"].to_pylist(), found["state"].to_pylist(), strict=True)
    seen = [row for row in rows if row[0] not in hidden]
    return Held(dict(seen), len(seen))
