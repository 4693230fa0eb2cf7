"""Makes a collection anew beside the live one, and puts the new build in its place in one commit of the journal.

While a build is made nobody waits for it: what is written meanwhile is caught up with, the last of it under the
collection's turn. A process killed on the way leaves the live build as it was; `sweep` takes away what it left.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, Literal

from app.ids import new_id
from app.services.retrieval.arrow import arrow
from app.services.retrieval.commit import IndexFailed, committed, guarded
from app.services.retrieval.embedder import Embedder
from app.services.retrieval.gate import Golden, Report, Thresholds, judge
from app.services.retrieval.held import HeldDocument, HeldEntry, held_documents
from app.services.retrieval.journal import Beside, Why
from app.services.retrieval.library import KEPT, Library, put
from app.services.retrieval.locks import Taken
from app.services.retrieval.near import ensure_near
from app.services.retrieval.place import Place
from app.services.retrieval.recipe import DEFAULT, Recipe, dimensions_of, read
from app.services.retrieval.shelf import Shelf, Snapshot
from app.services.retrieval.table import Entry
from app.services.retrieval.versions import label
from graphs.errors import Conflict

log = logging.getLogger(__name__)

COPIED_ROWS = 20_000  # a commit; 40 MB of them
GROUP = 64  # documents that are made and committed together
CATCH_UPS = 5
JOURNAL_FILES = 50  # each write reads the journal; 100 files of one row took LanceDB 23 ms
CANDIDATE_KEPT = timedelta(days=1)  # it costs every write a second one
PURGE: Final = "purge"  # in the journal, in the place of a verdict

Remake = Callable[[Sequence[HeldDocument]], Awaitable[Sequence[Entry]]]

Told = Callable[[int, int], Awaitable[None]]
"""Hears how many of how many are done: documents of a new build, collections of a round."""


async def silent(done: int, total: int) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What became of a build that was begun for the same errand; `verdict` is the gate's, once it was promoted."""

    version: str
    verdict: Report | None


@dataclass(frozen=True, slots=True)
class Purged:
    """Erased text has left the disk, and these builds beside the live one with it."""

    dropped: tuple[Beside, ...]


Remakes = Callable[[Place, Recipe], Remake]
"""How the documents of a collection become entries by a recipe."""


def embedded_anew(embedder: Embedder) -> Remake:
    """The same chunks with this embedder's vectors, of the text that taking a document in embeds."""

    async def remake(documents: Sequence[HeldDocument]) -> Sequence[Entry]:
        made = list[Entry]()
        for document in documents:
            texts = ["\n".join(filter(None, (document.title, each.heading, each.text))) for each in document.chunks]
            made.append(HeldEntry(document, await embedder.embed(texts)))
        return made

    return remake


class Rebuild:
    """The builds of a library's collections."""

    def __init__(self, library: Library, remakes: Remakes | None = None) -> None:
        """`remakes` are for builds that are of another recipe than the live one; without it chunks stay as they are."""
        self._library = library
        self._shelf: Shelf = library.shelf
        self._remakes = remakes or self._embedded_anew

    async def build(
        self,
        tenant_id: str,
        collection: str,
        remake: Remake | None = None,
        recipe: Recipe = DEFAULT,
        *,
        errand: str = "",
        told: Told = silent,
    ) -> str:
        """Make a candidate of all documents by a recipe and give its version's label; an earlier candidate is dropped.

        The journal keeps with it the name of the `errand` that it was made for, such as a job's id.

        Raises Missing, Invalid for an embedder that is not to be had, and Conflict where somebody else is at it.
        """
        place = Place(tenant_id, collection)
        layout = await self._library.layout(tenant_id, recipe)
        try:
            async with self._shelf.locks.turn(f"{place.base}.build", wait=False):
                build = await self._begin(place, errand)
                table = await self._shelf.create(place, build, layout)
                await self._fill(place, build, table, remake or self._remakes(place, recipe), told)
        except Taken as error:
            raise Conflict(f"collection {place} is being rebuilt already") from error
        return await self._label(place, build)

    async def earlier(self, tenant_id: str, collection: str, errand: str) -> Earlier | None:
        """The whole build that this errand has led to already; None where there is none, or it went since."""
        place = Place(tenant_id, collection)
        events, stands = await self._shelf.events(place), await self._shelf.standing(place)
        builds = {event.build for event in events if event.happening == "building" and event.note == errand}
        whole = {stands.candidate} if stands.complete else set()
        for event in events:
            if event.happening == "promoted" and event.build in builds - stands.gone:
                return Earlier(await self._label(place, event.build), Report.parsed(event.note))
        waiting = [build for build in builds if build in whole]
        return Earlier(await self._label(place, waiting[0]), None) if waiting else None

    async def promote(
        self, tenant_id: str, collection: str, golden: Sequence[Golden], thresholds: Thresholds
    ) -> Report:
        """Judge the candidate by the golden questions and, if it passes, let it answer from now on.

        Raises Missing, and Conflict where no candidate waits.
        """
        place = Place(tenant_id, collection)
        stands = await self._shelf.standing(place)
        if stands.candidate is None or not stands.complete:
            await self._shelf.open(place, stands.live, foreign=True)  # Missing is said before that
            raise Conflict(f"collection {place} has no build that waits to be promoted")
        await self._catch_up(place, stands.candidate)
        await self._shelf.tidy(place, stands.candidate, KEPT)
        report = await judge(self._library, place, await self._label(place, stands.candidate), golden, thresholds)
        if report.passed:
            await self._flip(place, stands.candidate, json.dumps(report.summary))
        log.info("a build was judged", extra={"collection": str(place), **report.summary})
        return report

    async def roll_back(self, place: Place) -> str:
        """Let the build before the last promotion answer again; it took every write since. Raises Missing, Conflict."""
        before, live = await self._back(place, catch_up=True)
        await self._tell_readers(place, before)
        return await self._label(place, live)

    async def go_back_for_good(self, place: Place) -> None:
        """The same where the live build is damaged, which is dropped. Raises Conflict."""
        before, _ = await self._back(place, catch_up=False)
        await self._discard(place, before)

    async def purge(self, place: Place) -> Purged | None:
        """Take erased text from the disk: live rows are copied to a new build, and everything else is dropped.

        None where there was nothing to do. It ends the way back to an earlier build and the wait of a new one, which
        held the text too.
        """
        if not (await self._shelf.standing(place)).unclean:
            return None
        try:
            async with self._shelf.locks.turn(f"{place.base}.build", wait=False):
                before = await self._shelf.standing(place)
                build = await self._begin(place, instead="erasure")
                live = await self._shelf.open(place, before.live, foreign=True)
                table = await self._shelf.create(place, build, await guarded(live.schema()))
                await self._fill(place, build, table, None)
                await self._flip(place, build, PURGE)
                if (await self._shelf.standing(place)).standby == before.live:
                    await self._discard(place, before.live)
        except Taken:
            return None  # a build is being made; the next round comes back
        dropped = tuple(before.beside.values())
        if dropped:
            log.warning("builds went with erased text", extra={"collection": str(place), "builds": dropped})
        return Purged(dropped)

    async def sweep(self, place: Place, names: set[str]) -> None:
        """Take away what killed processes left: half a candidate, dropped builds' files, readers that were not told."""
        stands, events = await self._shelf.standing(place), await self._shelf.events(place)
        if stands.candidate is not None:
            old = datetime.now(UTC) - CANDIDATE_KEPT > events[-1].at
            try:
                async with self._shelf.locks.turn(f"{place.base}.build", wait=False):
                    stands = await self._shelf.standing(place)
                    if stands.candidate is not None and (old or not stands.complete):
                        await self._discard(place, stands.candidate, "age" if stands.complete else "")
            except Taken:
                return
        if len(events) > JOURNAL_FILES:
            await self._shelf.tidy_journal(place, KEPT)
        for build in stands.gone:
            if place.table(build) in names:
                await self._shelf.drop(place, build)
        changes = [event.at for event in events if event.happening in ("promoted", "rolled_back")]
        if stands.standby is not None and changes:
            table = await self._shelf.open(place, stands.standby)
            last = (await guarded(table.list_versions()))[-1]["timestamp"].astimezone(UTC)
            if last < changes[-1]:
                await self._tell_readers(place, stands.standby)

    async def start_over(self, place: Place) -> None:
        """Drop all that is held, damaged or not: an empty build is live, and documents can be taken in anew."""
        names = (await self._shelf.names()).get(place.base, set())
        try:
            recipe = await self._library.recipe(place.tenant_id, place.collection)
        except (Conflict, IndexFailed):
            recipe = DEFAULT  # it cannot be read any more
        async with self._shelf.locks.turn(f"{place.base}.build"), self._shelf.turn(place):
            try:
                stands = await self._shelf.standing(place)
            except IndexFailed:
                await self._shelf.drop_named(place.journal)
            else:
                for build in stands.held:
                    await self._shelf.note(place, "discarded", build)
            build = new_id()[:8]
            await self._shelf.create(place, build, await self._library.layout(place.tenant_id, recipe))
            await self._shelf.note(place, "building", build)
            await self._shelf.note(place, "promoted", build, note="start over")
            await self._shelf.note(place, "discarded", (await self._shelf.standing(place)).standby or "")
        for name in names - {place.journal}:
            await self._shelf.drop_named(name)
        self._shelf.damage.mended(place)

    async def _back(self, place: Place, *, catch_up: bool) -> tuple[str, str]:
        """Let the standby answer: the builds that were live before and are now.

        From a damaged build nothing can be caught up with.
        """
        stands = await self._shelf.standing(place)
        standby = stands.standby
        if standby is None:
            await self._shelf.open(place, stands.live, foreign=True)  # Missing is said before that
            raise Conflict(f"collection {place} has no build to go back to")
        if catch_up:
            await self._catch_up(place, standby)
        await self._shelf.tidy(place, standby, KEPT)
        async with self._shelf.turn(place):
            stands = await self._shelf.standing(place)
            if stands.standby != standby:
                raise Conflict(f"another build of collection {place} was promoted meanwhile")
            if catch_up:
                await self._catch_up(place, standby)
            await self._shelf.note(place, "rolled_back", standby)
        return stands.live, standby

    async def _begin(self, place: Place, errand: str = "", instead: Why = "rebuild") -> str:
        """The name of a new candidate, in the place of any earlier one."""
        stands = await self._shelf.standing(place)
        await self._shelf.open(place, stands.live, foreign=True)
        if stands.candidate is not None:
            await self._discard(place, stands.candidate, instead if stands.complete else "")
        build = new_id()[:8]
        async with self._shelf.turn(place):
            await self._shelf.note(place, "building", build, note=errand)
        return build

    async def _fill(self, place: Place, build: str, table: Any, remake: Remake | None, told: Told = silent) -> None:
        """All documents of the live build; without `remake` their rows as they are."""
        import pyarrow as pa  # Lazy, as lancedb is: 47 MB

        source = await self._source(place)
        seen, taken_away = await _contents(source.table), set[str]()
        if remake is None:
            async for batch in await guarded(source.table.query().to_batches(max_batch_length=COPIED_ROWS)):
                await committed(partial(table.add, pa.Table.from_batches([batch])))
        else:
            documents = sorted({document_id for document_id, _, _ in seen})
            for done in range(0, len(documents), GROUP):
                await told(done, len(documents))
                await self._put(place, table, source, documents[done : done + GROUP], remake)
            await told(len(documents), len(documents))
        for _ in range(CATCH_UPS):
            source, seen, changed, gone = await self._since(place, seen)
            taken_away |= gone
            await self._put(place, table, source, changed, remake)
            if len(changed) <= GROUP:
                break
        await self._shelf.ensure_index(table)
        await ensure_near(table)
        await self._shelf.tidy(place, build, KEPT)
        async with self._shelf.turn(place):
            source, seen, changed, gone = await self._since(place, seen)
            await self._put(place, table, source, changed, remake)
            if taken_away | gone:
                await self._shelf.note(place, "erased", build, version=await guarded(table.version()))
            await self._shelf.note(place, "built", build)

    async def _source(self, place: Place) -> Snapshot:
        live = (await self._shelf.standing(place)).live
        version = await guarded((await self._shelf.open(place, live, foreign=True)).version())
        return await self._shelf.checked_out(place, live, version)

    async def _since(
        self, place: Place, seen: set[tuple[str, str, str]]
    ) -> tuple[Snapshot, set[tuple[str, str, str]], list[str], set[str]]:
        """The live build now, what it holds, the documents that differ from `seen`, and those that are gone."""
        source = await self._source(place)
        now = await _contents(source.table)
        changed = {document_id for document_id, _, _ in seen ^ now}
        return source, now, sorted(changed), changed - {document_id for document_id, _, _ in now}

    async def _put(
        self, place: Place, table: Any, source: Snapshot, document_ids: Sequence[str], remake: Remake | None
    ) -> None:
        from lancedb.expr import col, lit

        for group in _groups(document_ids):
            these = col("document_id").isin([lit(document_id) for document_id in group])
            rows = await guarded(source.table.query().where(these).to_arrow())
            if remake is not None:
                entries = await remake(held_documents(rows.drop(["vector"]).to_pylist()))
                layout = await self._layout(table)
                rows = arrow(place.tenant_id, place.collection, entries, layout) if entries else None
            if rows is None:
                await committed(partial(table.delete, these))
            else:
                await put(table, rows, group)

    async def _catch_up(self, place: Place, build: str) -> None:
        """Bring a build level with the live one where it is of another recipe, and so did not take each write."""
        table, live = await self._shelf.open(place, build), (await self._shelf.standing(place)).live
        layout = await self._layout(table)
        if await self._shelf.is_made(place, live, layout):
            return
        source = await self._source(place)
        behind = {document_id for document_id, _ in await _documents(source.table) ^ await _documents(table)}
        await self._put(place, table, source, sorted(behind), self._remakes(place, read(layout)))

    async def _layout(self, table: Any) -> Any:
        held = await guarded(table.schema())
        return self._library.layout_of(read(held), dimensions_of(held))

    def _embedded_anew(self, place: Place, recipe: Recipe) -> Remake:
        async def remake(documents: Sequence[HeldDocument]) -> Sequence[Entry]:
            embedder = await self._library.embedders.named(recipe.embedder, place.tenant_id)
            return await embedded_anew(embedder)(documents)

        return remake

    async def _flip(self, place: Place, build: str, note: str) -> None:
        async with self._shelf.turn(place):
            stands = await self._shelf.standing(place)
            if stands.candidate != build or not stands.complete:
                raise Conflict(f"another build of collection {place} was made meanwhile")
            await self._catch_up(place, build)
            if stands.standby is not None:
                await self._shelf.note(place, "discarded", stands.standby, note="erasure" if note == PURGE else "")
            await self._shelf.note(place, "promoted", build, note=note)
            await self._tell_readers(place, stands.live)
        if stands.standby is not None:
            await self._shelf.drop(place, stands.standby)
        if await self._is_foreign(place, stands.live):
            await self._discard(
                place, stands.live, "" if note == PURGE else "embedder"
            )  # it can take no write from now on

    async def _is_foreign(self, place: Place, build: str) -> bool:
        try:
            await self._shelf.open(place, build)
        except Conflict:
            return True
        return False

    async def _discard(self, place: Place, build: str, why: Why | Literal[""] = "") -> None:
        async with self._shelf.turn(place):
            await self._shelf.note(place, "discarded", build, note=why)
        await self._shelf.drop(place, build)

    async def _tell_readers(self, place: Place, build: str) -> None:
        """One commit that changes no row: who holds the build sees a new version and looks at the journal again."""
        table = await self._shelf.open(place, build, foreign=True)
        await committed(lambda: table.delete("false"))

    async def _label(self, place: Place, build: str) -> str:
        table = await self._shelf.open(place, build, foreign=True)
        return label(place.collection, build, await guarded(table.version()))


async def _contents(table: Any) -> set[tuple[str, str, str]]:
    """Document and chunk of each row, and all of it that may change while the chunk stays the same."""
    names = ("document_id", "chunk_id", "state", "trust", "allow_groups")
    rows = await guarded(table.query().select(list(names)).to_arrow())
    return {
        (document_id, chunk_id, json.dumps(rest))
        for document_id, chunk_id, *rest in zip(*(rows[name].to_pylist() for name in names), strict=True)
    }


async def _documents(table: Any) -> set[tuple[str, str]]:
    """Each document with all of it that may change but how it is cut and embedded."""
    return {(document_id, rest) for document_id, _, rest in await _contents(table)}


def _groups(document_ids: Sequence[str]) -> Iterator[Sequence[str]]:
    for first in range(0, len(document_ids), GROUP):
        yield document_ids[first : first + GROUP]
