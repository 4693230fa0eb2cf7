"""Builds beside the live one: the gate before them, the way back behind them, and what a kill leaves."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from app.services.retrieval.embedder import MiniLmEmbedder, Vectors
from app.services.retrieval.gate import Golden, Thresholds, judge
from app.services.retrieval.held import HeldDocument
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import Rebuild, Remake, embedded_anew
from app.services.retrieval.table import Entry
from app.services.retrieval.versions import VersionGone
from graphs.errors import Conflict
from tests.services.retrieval.entries import Doc, Piece, doc

NOTES = Place("acme", "notes")
LONG = "The harbour master keeps the tide tables. The pilot boards at the outer buoy. Tugs wait inside the mole."
SOUND = Thresholds(max_size_ratio=10, latency_slack_ms=60_000)  # two chunks weigh little, and the machine is shared
GOLDEN = [
    Golden("where does the pilot board?", "harbour", "boards at the outer buoy"),
    Golden("who keeps the tide tables?", "harbour", "harbour master"),
    Golden("what is cooked on Friday?", "menu"),
]


@pytest.fixture
async def library(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(tmp_path / "lance", embedder)
    await made.replace(
        "acme",
        "notes",
        [await doc(embedder, "harbour", LONG, "Harbour"), await doc(embedder, "menu", "On Friday fish is cooked.")],
    )
    yield made
    await made.close()


def sentences(embedder: MiniLmEmbedder) -> Remake:
    """Another chunker: a chunk for each sentence."""

    async def remake(documents: Sequence[HeldDocument]) -> Sequence[Entry]:
        made = []
        for held in documents:
            pieces = [f"{each}." for chunk in held.chunks for each in chunk.text.rstrip(".").split(". ")]
            vectors = await embedder.embed(pieces)
            made.append(Doc(held.document_id, held.title, tuple(map(Piece, pieces)), vectors, held.metadata))
        return made

    return remake


async def nonsense(documents: Sequence[HeldDocument]) -> Sequence[Entry]:
    """A chunker that lost the text."""
    vector = np.full((1, 384), 384**-0.5, np.float32)
    return [Doc(held.document_id, "", (Piece("lorem ipsum"),), vector) for held in documents]


async def chunks(library: Library) -> int:
    return len((await library.search("acme", "notes", "harbour fish", 50)).passages)


async def test_a_better_build_is_promoted_and_rolled_back_in_one_step(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    rebuild = Rebuild(library)
    before = await library.version("acme", "notes")
    candidate = await rebuild.build("acme", "notes", sentences(embedder))
    assert (await chunks(library), await library.version("acme", "notes")) == (2, before)  # nothing has changed yet
    report = await rebuild.promote("acme", "notes", GOLDEN, replace(SOUND, min_recall=1.0))
    assert report.passed, report
    assert report.candidate.recall == 1.0
    assert await chunks(library) == 4
    assert (await library.version("acme", "notes")).startswith(candidate.partition(".")[0])
    await rebuild.roll_back(NOTES)
    assert await chunks(library) == 2
    await rebuild.roll_back(NOTES)  # and forward again
    assert await chunks(library) == 4


async def test_a_search_during_promotions_and_roll_backs_sees_one_build_whole_and_says_which(
    library: Library, tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    elsewhere = await Library.open(tmp_path / "lance", embedder)  # as another process reads the folder
    rebuild, seen, done = Rebuild(library), list[tuple[str, int]](), asyncio.Event()

    async def search(reader: Library) -> None:
        while not done.is_set():
            found = await reader.search("acme", "notes", "harbour fish", 50)
            seen.append((_build(found.index_version), len(found.passages)))

    before = _build(await library.version("acme", "notes"))
    after = _build(await rebuild.build("acme", "notes", sentences(embedder)))
    searching = [asyncio.create_task(search(reader)) for reader in (library, library, elsewhere)]
    assert (await rebuild.promote("acme", "notes", GOLDEN, SOUND)).passed
    for _ in range(3):
        await asyncio.sleep(0.05)
        await rebuild.roll_back(NOTES)
    done.set()
    await asyncio.gather(*searching)
    await elsewhere.close()
    assert set(seen) == {(before, 2), (after, 4)}


def _build(label: str) -> str:
    """Of `notes@BUILD.7`; the first build has no name: `notes@7`."""
    return label.partition("@")[2].rpartition(".")[0]


async def test_a_build_that_finds_less_is_not_promoted(library: Library) -> None:
    rebuild = Rebuild(library)
    await rebuild.build("acme", "notes", nonsense)
    report = await rebuild.promote("acme", "notes", GOLDEN, SOUND)
    assert not report.passed
    assert any("recall@10" in failure for failure in report.failures)
    assert any("nDCG@10" in failure for failure in report.failures)
    assert await chunks(library) == 2


@pytest.mark.parametrize(
    ("bounds", "named"),
    [
        (replace(SOUND, min_questions=4), "golden questions"),
        (replace(SOUND, max_size_ratio=0.01), "bytes"),
        (replace(SOUND, max_latency_ratio=0.0, latency_slack_ms=0.0), "ms"),
        (replace(SOUND, min_ndcg=1.01), "nDCG@10"),
    ],
)
async def test_each_bound_of_the_gate_can_refuse(
    library: Library, embedder: MiniLmEmbedder, bounds: Thresholds, named: str
) -> None:
    candidate = await Rebuild(library).build("acme", "notes", embedded_anew(embedder))
    (failure,) = (await judge(library, NOTES, candidate, GOLDEN, bounds)).failures
    assert named in failure


async def test_the_same_chunks_embedded_anew_are_found_alike(library: Library, embedder: MiniLmEmbedder) -> None:
    candidate = await Rebuild(library).build("acme", "notes", embedded_anew(embedder))
    report = await judge(library, NOTES, candidate, GOLDEN, SOUND)
    assert report.passed
    assert report.live is not None
    assert (report.candidate.recall, report.candidate.ndcg) == (report.live.recall, report.live.ndcg)


async def test_a_write_reaches_the_live_build_the_candidate_and_the_standby(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    rebuild = Rebuild(library)
    await rebuild.build("acme", "notes", embedded_anew(embedder))
    await library.replace("acme", "notes", [await doc(embedder, "later", "Later came the ferry.")])
    await library.remove("acme", "notes", "menu")
    assert (await rebuild.promote("acme", "notes", GOLDEN[:2], SOUND)).passed
    await library.replace("acme", "notes", [await doc(embedder, "last", "Last came the barge.")])
    for _ in range(2):
        found = await library.search("acme", "notes", "ferry barge", 50)
        assert sorted(passage.document_id for passage in found.passages) == ["harbour", "last", "later"]
        await rebuild.roll_back(NOTES)


async def test_what_is_written_while_a_build_is_made_is_in_it(library: Library, embedder: MiniLmEmbedder) -> None:
    rebuild = Rebuild(library)
    written = False

    async def slow(documents: Sequence[HeldDocument]) -> Sequence[Entry]:
        nonlocal written
        if not written:
            written = True
            await library.replace("acme", "notes", [await doc(embedder, "new", "New came the ferry.")])
            await library.replace("acme", "notes", [await doc(embedder, "menu", "On Friday soup is cooked.")])
            await library.remove("acme", "notes", "harbour")
        return await embedded_anew(embedder)(documents)

    await rebuild.build("acme", "notes", slow)
    assert (await rebuild.promote("acme", "notes", GOLDEN[2:], SOUND)).passed
    found = await library.search("acme", "notes", "ferry", 50)
    texts = {passage.document_id: passage.text for passage in found.passages}
    assert texts == {"new": "New came the ferry.", "menu": "On Friday soup is cooked."}


async def test_another_embedders_collection_is_made_anew_from_its_texts(
    library: Library, tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    class Halved:
        id, dimensions = "half@1", 192

        async def embed(self, texts: Sequence[str]) -> Vectors:
            whole = (await embedder.embed(texts))[:, :192]
            return whole / np.linalg.norm(whole, axis=1, keepdims=True)

    other = await Library.open(tmp_path / "lance", Halved())
    with pytest.raises(Conflict):
        await other.search("acme", "notes", "pilot")
    rebuild = Rebuild(other)
    await rebuild.build("acme", "notes", embedded_anew(other.embedder))
    report = await rebuild.promote("acme", "notes", GOLDEN, replace(SOUND, min_recall=1.0))
    assert report.passed
    assert report.live is None
    await other.replace("acme", "notes", [await doc(other.embedder, "new", "New came the ferry.")])
    assert len((await other.search("acme", "notes", "pilot", 50)).passages) == 3
    with pytest.raises(Conflict):
        await rebuild.roll_back(NOTES)  # the old vectors can take no new documents
    await other.close()


async def test_only_one_build_of_a_collection_is_made_at_a_time(library: Library, embedder: MiniLmEmbedder) -> None:
    rebuild, begun, go_on = Rebuild(library), asyncio.Event(), asyncio.Event()

    async def held(documents: Sequence[HeldDocument]) -> Sequence[Entry]:
        begun.set()
        await go_on.wait()
        return await embedded_anew(embedder)(documents)

    first = asyncio.create_task(rebuild.build("acme", "notes", held))
    await begun.wait()
    with pytest.raises(Conflict):
        await rebuild.build("acme", "notes", embedded_anew(embedder))
    assert not await rebuild.purge(NOTES)
    go_on.set()
    await first


async def test_a_replaced_candidate_and_an_old_standby_leave_the_disk(
    library: Library, embedder: MiniLmEmbedder, tmp_path: Path
) -> None:
    rebuild = Rebuild(library)
    first = await library.version("acme", "notes")
    for _ in range(3):
        await rebuild.build("acme", "notes", embedded_anew(embedder))
        await rebuild.build("acme", "notes", embedded_anew(embedder))
        assert (await rebuild.promote("acme", "notes", GOLDEN, SOUND)).passed
    assert len(list((tmp_path / "lance").glob("*.lance"))) == 3  # live, standby, journal
    with pytest.raises(VersionGone):
        await library.search("acme", "notes", "pilot", as_of=first)


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from types import SimpleNamespace
from app.services.retrieval.library import Library
from app.services.retrieval.rebuild import Rebuild

async def main(folder, embedder, moment):
    library = await Library.open(Path(folder), SimpleNamespace(id=embedder, dimensions=384))
    rebuild = Rebuild(library)

    async def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)

    async def half(documents):
        await die()

    if moment == "filling":
        await rebuild.build("acme", "notes", half)
    if moment == "before the note":
        library.shelf.tidy = die
        await rebuild.purge(Place("acme", "notes"))
    if moment == "before the readers know":
        rebuild._tell_readers = die
        await rebuild.purge(Place("acme", "notes"))

from app.services.retrieval.place import Place
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("moment", ["filling", "before the note", "before the readers know"])
async def test_d11_a_build_killed_at_any_moment_leaves_the_rows_and_is_swept(
    library: Library, embedder: MiniLmEmbedder, tmp_path: Path, moment: str
) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "gone", "the key")])
    await library.remove("acme", "notes", "gone")
    command = [sys.executable, "-c", KILLED, str(tmp_path / "lance"), embedder.id, moment]
    killed = await asyncio.create_subprocess_exec(*command)
    assert await killed.wait() == -signal.SIGKILL
    rebuild = Rebuild(library)
    assert await chunks(library) == 2
    await library.replace("acme", "notes", [await doc(embedder, "new", "New came the ferry.")])
    await rebuild.sweep(NOTES, (await library.shelf.names())[NOTES.base])
    assert await chunks(library) == 3
    await rebuild.purge(NOTES)
    await rebuild.sweep(NOTES, (await library.shelf.names())[NOTES.base])
    assert await chunks(library) == 3
    assert len(list((tmp_path / "lance").glob("*.lance"))) == 2  # live and journal


async def test_starting_over_empties_a_collection_and_lets_it_be_filled(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    before = await library.version("acme", "notes")
    await Rebuild(library).start_over(NOTES)
    assert await chunks(library) == 0
    assert await library.states("acme", "notes", ["menu"]) == {}
    await library.replace("acme", "notes", [await doc(embedder, "menu", "On Friday fish is cooked.")])
    assert await chunks(library) == 1
    with pytest.raises(VersionGone):
        await library.search("acme", "notes", "pilot", as_of=before)
