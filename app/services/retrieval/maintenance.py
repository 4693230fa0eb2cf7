"""What keeps collections quick and small behind the calls.

A round goes through all collections: erased text leaves the disk, what killed processes left is swept, new rows are
indexed, small files joined, old versions dropped. Jobs make rounds, for the whole installation; each process mends by
itself the damage that its own searches met, at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from app.services.retrieval.commit import IndexFailed, guarded
from app.services.retrieval.damage import Damage
from app.services.retrieval.journal import Beside
from app.services.retrieval.library import KEPT, Library
from app.services.retrieval.locks import Taken
from app.services.retrieval.near import ensure_near
from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import Rebuild, Told, silent
from app.services.retrieval.shelf import Snapshot, readable
from graphs.errors import Conflict, PilothouseError

log = logging.getLogger(__name__)

MEND_S: Final = 60.0
# Old versions go earlier than KEPT where they weigh too much; a reader that is on one finishes within this.
READERS_KEPT: Final = timedelta(minutes=2)
MAX_VERSIONS: Final = 200
REST: Final = 20.0  # times as long as a purge or a round took: neither has more than 5% of the time
LIGHT_BYTES: Final = 64 << 20  # all files of a collection together may weigh this whatever the ratio
MAX_FILES_RATIO: Final = 10.0  # bytes of all files to those of the newest version


Alone = Callable[[str], AbstractAsyncContextManager[None]]
"""Has a collection, by its base, for one runner among all processes; raises Conflict where another one has it."""


def anybody(_: str) -> AbstractAsyncContextManager[None]:
    """Nobody else is at it: for a process that is alone with its folder."""
    return nullcontext()


class Maintenance:
    """Looks after all collections of a library. The workbench runs `keep` behind it."""

    def __init__(self, library: Library, folder: Path | None, *, pause_s: float = MEND_S) -> None:
        """`folder` is where the tables lie, to weigh their files; None for an object store."""
        self._shelf = library.shelf
        self._rebuild = Rebuild(library)
        self._folder = folder
        self._pause_s = pause_s
        self._tidied = dict[str, tuple[str, int]]()
        self._rested = dict[str, float]()

    async def keep(self) -> None:
        """Mend damage as it is found, for ever; what cannot be mended is tried again after a pause."""
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._shelf.damage.found.wait(), self._pause_s)
            self._shelf.damage.found.clear()
            try:
                await self.mend()
            except Exception:
                # The loop of a worker: an index that is away for a minute must not end it.
                log.exception("damage of the index could not be mended; it is tried again")

    async def round(self, alone: Alone = anybody, told: Told = silent) -> int:
        """Look after each collection that no other runner has; gives how many. None while the index is halted."""
        done = 0
        with suppress(Taken):
            async with self._shelf.locks.turn("round", wait=False):
                tables = await self._shelf.names()
                for number, (base, names) in enumerate(tables.items(), 1):
                    try:
                        async with alone(base):
                            await self._look_after(Place("", "", base), names)
                        done += 1
                    except PilothouseError as error:
                        # One broken collection must not keep the others waiting; a search of it says the same.
                        log.warning("a collection was not looked after", extra={"collection": base}, exc_info=error)
                    await told(number, len(tables))
        return done

    async def mend(self) -> None:
        """Build anew the indexes that were dropped; open collections again whose files are whole once more."""
        for damage in self._shelf.damage.damages:
            try:
                mended = await (self._reindex(damage) if damage.part == "index" else self._reopen(damage))
            except PilothouseError as error:
                log.warning("damage stays", extra={"collection": str(damage.place)}, exc_info=error)
            else:
                if mended:
                    self._shelf.damage.mended(damage.place)
                    log.warning("damage is mended", extra={"collection": str(damage.place), "part": damage.part})

    async def optimise(self, place: Place) -> tuple[Beside, ...]:
        """Take erased text from the disk, index new rows, join small files and drop old versions now.

        Gives the builds beside the live one that went with erased text. Raises Missing, IndexFailed.
        """
        await self._shelf.snapshot(place)
        purged = await self._rebuild.purge(place)
        snapshot = await self._shelf.snapshot(place)
        await self._tidy(place, snapshot.build)
        return () if purged is None else purged.dropped

    async def _look_after(self, place: Place, names: set[str]) -> None:
        await self._rebuild.sweep(place, names)
        await self._purge(place)
        build = (await self._shelf.standing(place)).live
        table = await self._shelf.open(place, build, foreign=True)
        if self._tidied.get(place.base) == (build, await guarded(table.version())):
            return
        with suppress(Conflict):  # another embedder's collection waits to be rebuilt, and takes no write
            # First: joining files passes over an index that it cannot read, and says so in no way.
            await self._shelf.read(place, _probe)
            await self._tidy(place, build)
            self._tidied[place.base] = (build, await guarded(table.version()))

    async def _purge(self, place: Place) -> None:
        """A collection that loses a document every minute is not copied every minute."""
        begun = time.monotonic()
        if begun >= self._rested.get(place.base, 0.0) and await self._rebuild.purge(place):
            ended = time.monotonic()
            self._rested[place.base] = ended + REST * (ended - begun)

    async def _tidy(self, place: Place, build: str) -> None:
        table = await self._shelf.open(place, build)
        await self._shelf.ensure_index(table)
        await ensure_near(table)
        await self._shelf.tidy(place, build, await self._kept(place, build))

    async def _kept(self, place: Place, build: str) -> timedelta:
        """KEPT, or less where the versions are too many or their files too heavy."""
        table = await self._shelf.open(place, build)
        versions = await guarded(table.list_versions())
        kept = KEPT
        if len(versions) > MAX_VERSIONS:
            kept = min(kept, datetime.now(UTC) - versions[-MAX_VERSIONS]["timestamp"].astimezone(UTC))
        if self._folder is not None:
            newest = max(int((await guarded(table.stats()))["total_bytes"]), 1)
            held = await asyncio.to_thread(_bytes, self._folder / f"{place.table(build)}.lance")
            if held > max(newest * MAX_FILES_RATIO, LIGHT_BYTES):
                log.warning("old versions weigh too much", extra={"collection": str(place), "bytes": held})
                kept = READERS_KEPT
        return max(kept, READERS_KEPT)

    async def _reindex(self, damage: Damage) -> bool:
        await self._tidy(damage.place, (await self._shelf.standing(damage.place)).live)
        return True

    async def _reopen(self, damage: Damage) -> bool:
        """Whether the rows can be read: a backup was put back, or there is a whole build to go back to."""
        if await self._is_readable(damage.place):
            return True
        try:
            await self._rebuild.go_back_for_good(damage.place)
        except Conflict:
            return False
        return await self._is_readable(damage.place)

    async def _is_readable(self, place: Place) -> bool:
        try:
            return await readable((await self._shelf.snapshot(place)).table)
        except IndexFailed:
            return False


async def _probe(snapshot: Snapshot) -> None:
    """Look up one row's words, for which the text index has to be read."""
    from lancedb.query import MatchQuery

    table = snapshot.table
    for words in (await table.query().select(["words"]).limit(1).to_arrow())["words"].to_pylist():
        await table.query().nearest_to_text(MatchQuery(words, "words")).select(["_score"]).limit(1).to_arrow()


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
