"""The tables of all collections: which build of each is live, opened once, and held at one version for a search.

What goes wrong with files ends here: a broken index is dropped and the search made without it, broken rows close their
collection alone.
"""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from app.services.retrieval.commit import IndexAway, IndexDamaged, IndexFailed, committed, failed, guarded
from app.services.retrieval.damage import DamageReport
from app.services.retrieval.embedders import Embedders
from app.services.retrieval.groups import ForSome, ensure_groups, has_groups
from app.services.retrieval.journal import Event, Happening, Standing, journal_schema, standing
from app.services.retrieval.locks import Locks
from app.services.retrieval.near import Near
from app.services.retrieval.place import Place
from app.services.retrieval.recipe import DEFAULT, Recipe, dimensions_of, made, read
from app.services.retrieval.table import made_by
from app.services.retrieval.versions import VersionGone, label, parsed
from graphs.errors import Conflict, Missing

log = logging.getLogger(__name__)

HELD_TABLES = 256


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A build that stays at one version, so that both legs of a search read the same rows."""

    table: Any
    build: str
    version: int
    near: Near = field(default_factory=Near, compare=False)
    for_some: ForSome = field(default_factory=ForSome, compare=False)
    recipe: Recipe = DEFAULT
    made: str = ""  # by which embedder and layout: vectors of two never meet
    dimensions: int = 0

    def label(self, collection: str) -> str:
        return label(collection, self.build, self.version)


class Shelf:
    """Opens, makes and drops tables. Those whose embedder is not among `embedders` are foreign."""

    def __init__(self, database: Any, locks: Locks, embedders: Embedders) -> None:
        self._db = database
        self.locks = locks
        self.damage = DamageReport()
        self._embedders = embedders
        self._tables: OrderedDict[str, Any] = OrderedDict()
        self._snapshots: OrderedDict[str, Snapshot] = OrderedDict()

    def close(self) -> None:
        self._tables.clear()
        self._snapshots.clear()
        self._db.close()

    async def read(
        self, place: Place, work: Callable[[Snapshot], Awaitable[Any]], as_of: str | None = None
    ) -> tuple[Any, Snapshot]:
        """What `work` reads of the collection, past a broken index. Raises Missing, VersionGone, IndexDamaged."""
        snapshot = await self.snapshot(place, as_of)
        broken = self.damage.of(place)
        if broken is not None and broken.part == "rows" and (broken.build, broken.version) == _at(snapshot):
            raise _closed(place)
        try:
            return await guarded(work(snapshot)), snapshot
        except IndexAway:
            raise  # of files that nobody can reach nothing is known
        except IndexFailed:
            self._forget(place, snapshot.build)
        # Another process may have cleaned up this version, or dropped this build: the newest is tried before judging.
        again = await self.snapshot(place, as_of)
        try:
            return await guarded(work(again)), again
        except IndexAway:
            raise
        except IndexFailed as error:
            if as_of is not None:
                raise IndexDamaged(f"version {as_of} cannot be read") from error
            await self.drop_broken_indices(place, again)
        mended = await self.snapshot(place)
        return await guarded(work(mended)), mended

    async def drop_broken_indices(self, place: Place, snapshot: Snapshot) -> None:
        """Have the collection searched without its indexes until they are made anew. Raises IndexDamaged."""
        if not await readable(snapshot.table):
            self.damage.note(place, "rows", snapshot.build, snapshot.version)
            log.error("a collection's rows are damaged", extra={"collection": str(place)})
            raise _closed(place)
        table = await self.open(place, snapshot.build)
        for index in await guarded(table.list_indices()):
            await committed(partial(table.drop_index, index.name))
        self.damage.note(place, "index", snapshot.build, snapshot.version)
        log.warning("a damaged index is bypassed", extra={"collection": str(place)})

    async def snapshot(self, place: Place, as_of: str | None = None) -> Snapshot:
        """The live build at its newest version, or what was asked for.

        Raises Missing, VersionGone, Conflict, IndexDamaged.
        """
        if as_of is not None:
            return await self._past(place, as_of)
        try:
            return await self._newest(place)
        except IndexDamaged:
            self.damage.note(place, "rows", "", 0)  # no version is 0: each search tries to open it again
            raise

    async def _newest(self, place: Place) -> Snapshot:
        held = self._snapshots.get(place.base)
        if held is not None and await self._is_current(place, held):
            return held
        build = (await self.standing(place)).live
        version = await guarded((await self.open(place, build)).version())
        made = await self.checked_out(place, build, version)
        _hold(self._snapshots, place.base, made)
        return made

    async def _is_current(self, place: Place, held: Snapshot) -> bool:
        """A build that is no longer live got one more commit at its end, so its version tells that as well."""
        name = place.table(held.build)
        try:
            return name in self._tables and await guarded(self._tables[name].version()) == held.version
        except IndexFailed:
            self._forget(place, held.build)
            return False

    async def _past(self, place: Place, as_of: str) -> Snapshot:
        build, number = parsed(as_of, place.collection)
        stands = await self.standing(place)
        if build in stands.gone or number < stands.floors.get(build, 0):
            raise VersionGone(f"version {as_of} is gone")
        try:
            newest = await guarded((await self.open(place, build)).version())
        except Missing as error:
            raise Missing(f"collection {place} has no such version") from error
        if number > newest:
            raise Missing(f"collection {place} has no such version")
        try:
            past = await self.checked_out(place, build, number)
        except IndexFailed as error:
            if "no longer exists" in str(error.__cause__):
                raise VersionGone(f"version {as_of} is gone") from error
            raise
        if not await has_groups(past.table):
            raise VersionGone(f"version {as_of} is from before documents had groups")
        return past

    async def checked_out(self, place: Place, build: str, version: int) -> Snapshot:
        table = await guarded(self._db.open_table(place.table(build)))
        await guarded(table.checkout(version))
        layout = await guarded(table.schema())
        return Snapshot(
            table,
            build,
            version,
            Near.of(layout),
            recipe=read(layout),
            made=made(layout),
            dimensions=dimensions_of(layout),
        )

    async def open(self, place: Place, build: str, *, foreign: bool = False) -> Any:
        """The build at its newest version. Raises Missing; Conflict for another embedder's, unless `foreign`."""
        name = place.table(build)
        if name not in self._tables:
            table = await self._opened(name)
            if table is None:
                raise Missing(f"no collection {place}")
            await ensure_groups(table)
            layout = await guarded(table.schema())
            if made(layout) != made_by(self._embedders.id_of(read(layout).embedder)):
                if foreign:
                    return table
                by = made(layout) or "an older version"
                raise Conflict(f"collection {place} was made by {by} and must be rebuilt")
            _hold(self._tables, name, table)
        return self._tables[name]

    async def is_made(self, place: Place, build: str, layout: Any) -> bool:
        """Whether the build takes rows of that schema; one that is not there yet does."""
        try:
            held = await guarded((await self.open(place, build, foreign=True)).schema())
        except Missing:
            return True
        return (made(held), read(held), dimensions_of(held)) == (made(layout), read(layout), dimensions_of(layout))

    async def create(self, place: Place, build: str, layout: Any) -> Any:
        """An empty build with that schema."""
        table = await guarded(self._db.create_table(place.table(build), schema=layout, exist_ok=True))
        _hold(self._tables, place.table(build), table)
        return table

    async def writable(self, place: Place, build: str, layout: Any) -> Any:
        """The build with its text index: rows come only when they will be indexed. Made if it is a first one."""
        try:
            table = await self.open(place, build)
        except Missing:
            table = await self.create(place, build, layout)
        await self.ensure_index(table)
        return table

    async def ensure_index(self, table: Any) -> None:
        from lancedb.index import FTS

        if not any(index.columns == ["words"] for index in await guarded(table.list_indices())):
            # icu/split also parts Chinese and Japanese, where the default takes a whole sentence as one word.
            words_index = FTS(base_tokenizer="icu/split", language="English", stem=True, max_token_length=64)
            await committed(lambda: table.create_index("words", config=words_index))

    def turn(self, place: Place) -> AbstractAsyncContextManager[None]:
        """For whoever writes rows or the journal: one at a time, so that no build misses a write."""
        return self.locks.turn(f"{place.base}.write")

    async def drop(self, place: Place, build: str) -> None:
        """Remove the build's files; it may be gone already."""
        self._forget(place, build)
        await self.drop_named(place.table(build))

    async def drop_named(self, name: str) -> None:
        try:
            await self._db.drop_table(name)
        except ValueError as error:
            if "was not found" not in str(error):
                raise IndexFailed("the index could not be written") from error

    async def standing(self, place: Place) -> Standing:
        return standing(await self.events(place))

    async def events(self, place: Place) -> list[Event]:
        """The collection's journal, oldest first; empty for one that was never rebuilt and lost nothing."""
        table = await self._opened(place.journal)
        if table is None:
            return []
        rows = (await guarded(table.query().to_arrow())).to_pylist()
        rows.sort(key=lambda row: row["number"])
        return [Event(row["at"], row["happening"], row["build"], row["version"], row["note"]) for row in rows]

    async def note(self, place: Place, happening: Happening, build: str, *, version: int = 0, note: str = "") -> None:
        """Add a row to the journal. The caller holds the collection's turn."""
        table = await self._opened(place.journal)
        if table is None:
            table = await guarded(self._db.create_table(place.journal, schema=journal_schema(), exist_ok=True))
        row = {
            "number": await guarded(table.count_rows()),
            "at": datetime.now(UTC),
            "happening": happening,
            "build": build,
            "version": version,
            "note": note,
        }
        await committed(lambda: table.add([row]))

    async def tidy(self, place: Place, build: str, kept: timedelta) -> None:
        """Index the new rows, join small files, drop versions older than `kept`; one process at a time."""
        async with self.locks.turn(f"{place.table(build)}.tidy"):
            table = await self.open(place, build)
            await committed(lambda: table.optimize(cleanup_older_than=kept))

    async def tidy_journal(self, place: Place, kept: timedelta) -> None:
        """Join its rows, each of which came in a file of its own."""
        table = await self._opened(place.journal)
        if table is not None:
            await committed(lambda: table.optimize(cleanup_older_than=kept))

    async def names(self) -> Mapping[str, set[str]]:
        """The names of all tables, by the collection's base."""
        found, token = dict[str, set[str]](), None
        while True:
            page = await guarded(self._db.list_tables(page_token=token, limit=1_000))
            for name in page.tables:
                found.setdefault("_".join(name.split("_")[:2]), set()).add(name)
            token = page.page_token
            if not token:
                return found

    async def _opened(self, name: str) -> Any:
        """The table, or None where there is none of that name."""
        try:
            return await self._db.open_table(name)
        except ValueError as error:
            if "was not found" in str(error):
                return None
            raise failed(error, IndexFailed("the index could not be opened")) from error
        except (RuntimeError, OSError) as error:
            raise failed(error, IndexDamaged("the index could not be opened")) from error

    def _forget(self, place: Place, build: str) -> None:
        self._tables.pop(place.table(build), None)
        self._snapshots.pop(place.base, None)


async def readable(table: Any) -> bool:
    """Whether every column of every row can be read."""
    try:
        async for _ in await table.query().to_batches():
            pass
    except (RuntimeError, ValueError, OSError):
        return False
    return True


def _at(snapshot: Snapshot) -> tuple[str, int]:
    return snapshot.build, snapshot.version


def _closed(place: Place) -> IndexDamaged:
    return IndexDamaged(f"the files of collection {place} are damaged; restore them, or ingest it anew")


def _hold(held: OrderedDict[str, Any], name: str, value: Any) -> None:
    held[name] = value
    held.move_to_end(name)
    if len(held) > HELD_TABLES:
        held.popitem(last=False)
