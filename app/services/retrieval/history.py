"""A collection's versions with what each of them changed, and what became of its builds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, Literal

from app.services.retrieval.commit import IndexFailed
from app.services.retrieval.journal import Event, Standing
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.shelf import Snapshot
from app.services.retrieval.versions import Version, label, parsed
from graphs.errors import Conflict, Missing

Role = Literal["live", "before", "waiting"]

READ_ROWS: Final = 20_000  # of a version that is compared document by document; reading their ids took LanceDB 10 ms
READ_VERSIONS: Final = 40

Held = Mapping[str, str]
"""Documents by id, with the digest of the state that each was written with."""


@dataclass(frozen=True, slots=True)
class Change:
    """A version beside the one before it in its build: documents that came, were replaced, and went.

    They are None where comparing would take too long, and `gained` is the difference in rows then as well; None for the
    first that is held of a build.
    """

    version: Version
    role: Role
    documents: int | None
    added: int | None = None
    replaced: int | None = None
    removed: int | None = None
    gained: int | None = None

    @property
    def nothing(self) -> bool:
        """Whether files were joined or indexed, and no more."""
        return (self.added, self.replaced, self.removed) == (0, 0, 0)


@dataclass(frozen=True, slots=True)
class History:
    """Versions and events newest first. `erased` names, by build, the first version that no longer held erased text;
    `waiting` and `before` the newest version of the build that may be promoted and of the one to go back to, if any."""

    changes: Sequence[Change]
    events: Sequence[Event]
    erased: Mapping[str, str]
    waiting: str
    before: str


async def history(library: Library, tenant_id: str, collection: str, limit: int) -> History:
    """The newest `limit` versions that changed something, and the newest of each build. Raises Missing, and what a
    search raises."""
    place = Place(tenant_id, collection)
    versions = await library.versions(tenant_id, collection)
    stands, events = await library.shelf.standing(place), await library.shelf.events(place)
    found = list[Change]()
    for build, role in _roles(stands).items():
        mine = [each for each in versions if parsed(each.label, collection)[0] == build]
        found += await _changes(library, place, mine[:READ_VERSIONS], role, limit)
    found.sort(key=lambda change: change.version.committed_at, reverse=True)
    return History(
        found[:limit],
        events[::-1],
        {build: label(collection, build, stands.floors[build]) for build in stands.held if build in stands.floors},
        waiting=_newest(versions, collection, stands.candidate) if stands.complete else "",
        before=_newest(versions, collection, stands.standby),
    )


async def _changes(library: Library, place: Place, versions: Sequence[Version], role: Role, limit: int) -> list[Change]:
    """Of one build, whose versions are given newest first."""
    found = list[Change]()
    held = await _held(library, place, versions[0]) if versions else None
    for version, earlier in zip_longest(versions, versions[1:]):
        before = None if earlier is None else await _held(library, place, earlier)
        change = _change(version, role, held, earlier, before)
        if not found or not change.nothing:
            found.append(change)
        held = before
        if len(found) == limit:
            break
    return found


def _change(version: Version, role: Role, held: Held | None, earlier: Version | None, before: Held | None) -> Change:
    documents = None if held is None else len(held)
    gained = None if earlier is None else version.rows - earlier.rows
    if held is None or before is None:
        return Change(version, role, documents, gained=gained)
    return Change(
        version,
        role,
        documents,
        added=len(held.keys() - before.keys()),
        replaced=sum(state != before.get(name, state) for name, state in held.items()),
        removed=len(before.keys() - held.keys()),
        gained=gained,
    )


def _roles(stands: Standing) -> dict[str, Role]:
    roles: dict[str, Role] = {stands.live: "live"}
    if stands.standby is not None:
        roles[stands.standby] = "before"
    if stands.candidate is not None:
        roles[stands.candidate] = "waiting"
    return roles


def _newest(versions: Sequence[Version], collection: str, build: str | None) -> str:
    return next((each.label for each in versions if parsed(each.label, collection)[0] == build), "")


async def _held(library: Library, place: Place, version: Version) -> Held | None:
    """None where reading would take too long, or is not possible."""

    async def documents(snapshot: Snapshot) -> Any:
        return await snapshot.table.query().select(["document_id", "state"]).to_arrow()

    if version.rows > READ_ROWS:
        return None
    try:
        found, _ = await library.shelf.read(place, documents, version.label)
    except (Missing, Conflict, IndexFailed):
        return None  # it was cleaned up between the two looks, or is another embedder's
    return dict(zip(found["document_id"].to_pylist(), found["state"].to_pylist(), strict=True))
