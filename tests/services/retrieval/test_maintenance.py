"""Upkeep behind the calls: one runner, bounded versions and files, and nobody who notices."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.services.retrieval import maintenance as module
from app.services.retrieval import rebuild
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.retrieval.locks import Locks, Taken
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.place import Place
from app.services.retrieval.versions import VersionGone
from tests.services.retrieval.entries import Doc, Piece, doc

NOTES = Place("acme", "notes")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lance"


@pytest.fixture
async def library(folder: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(folder, embedder)
    yield made
    await made.close()


def contents(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]


def weight(folder: Path) -> int:
    return sum(map(len, contents(folder)))


async def test_after_an_ingest_of_5000_chunks_none_is_left_out_of_the_text_index(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    """5,000 rows outside of it made a text search twenty times slower."""
    (vector,) = await embedder.embed(["key"])
    pieces = tuple(Piece(f"key {number}") for number in range(5_000))
    await library.replace("acme", "notes", [Doc("big", "", pieces, vector[None].repeat(5_000, 0))])
    stats = await (await library.shelf.snapshot(NOTES)).table.index_stats("words_idx")
    assert (stats.num_indexed_rows, stats.num_unindexed_rows) == (5_000, 0)


async def test_t12_a_round_takes_deleted_documents_from_the_disk(
    library: Library, embedder: MiniLmEmbedder, folder: Path
) -> None:
    entries = [await doc(embedder, f"d{number}", f"the key {number}") for number in range(20)]
    await library.replace("acme", "notes", [*entries, await doc(embedder, "x", "the Zanzibarian key")])
    await library.remove("acme", "notes", "x")
    await Maintenance(library, folder).round()
    assert not any(b"zanzibarian" in content.lower() for content in contents(folder))
    assert len((await library.search("acme", "notes", "key", 50)).passages) == 20


async def test_d12_versions_are_bounded_and_readers_go_on(
    library: Library, embedder: MiniLmEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_VERSIONS", 3)
    monkeypatch.setattr(module, "READERS_KEPT", timedelta(milliseconds=1))
    entry = await doc(embedder, "a", "the key")
    for _ in range(8):
        await library.replace("acme", "notes", [entry])
    first = (await library.versions("acme", "notes"))[-1].label
    snapshot = await library.shelf.snapshot(NOTES)
    await Maintenance(library, folder).round()
    held = await library.versions("acme", "notes")
    assert len(held) <= 5  # three, and what tidying itself commits
    assert len((await library.search("acme", "notes", "key")).passages) == 1
    assert await snapshot.table.count_rows() == 1
    with pytest.raises(VersionGone):
        await library.search("acme", "notes", "key", as_of=first)


async def test_d12_old_versions_that_weigh_too_much_go_early(
    library: Library, embedder: MiniLmEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILES_RATIO", 1.5)
    monkeypatch.setattr(module, "LIGHT_BYTES", 0)
    monkeypatch.setattr(module, "READERS_KEPT", timedelta(milliseconds=1))
    pieces = [f"key {number}" for number in range(40)]
    for turn in range(4):
        await library.replace("acme", "notes", [await doc(embedder, "a", [f"{turn} {piece}" for piece in pieces])])
    before = weight(folder)
    await Maintenance(library, folder).round()
    assert weight(folder) < before / 2


async def test_d12_a_journal_of_many_erasures_stays_in_few_files(
    library: Library, embedder: MiniLmEmbedder, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild, "JOURNAL_FILES", 3)
    await library.replace("acme", "notes", [await doc(embedder, f"d{number}", f"key {number}") for number in range(6)])
    for number in range(5):
        await library.remove("acme", "notes", f"d{number}")
    await Maintenance(library, folder).round()
    await Maintenance(library, folder).round()
    journal = await library.shelf._opened(NOTES.journal)
    assert (await journal.stats())["fragment_stats"]["num_fragments"] == 1
    assert [passage.document_id for passage in (await library.search("acme", "notes", "key")).passages] == ["d5"]


async def test_k10_one_process_at_a_time_goes_round(
    library: Library, embedder: MiniLmEmbedder, folder: Path, tmp_path: Path
) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "a", "the key")])
    await library.remove("acme", "notes", "a")
    async with Locks(folder / ".locks").turn("round"):  # as another process holds it
        await Maintenance(library, folder).round()
        assert (await library.shelf.standing(NOTES)).unclean
    await Maintenance(library, folder).round()
    assert not (await library.shelf.standing(NOTES)).unclean


async def test_one_broken_collection_does_not_keep_the_others_waiting(
    library: Library, embedder: MiniLmEmbedder, folder: Path
) -> None:
    for collection in ("broken", "notes"):
        await library.replace("acme", collection, [await doc(embedder, "a", "the key")])
        await library.remove("acme", collection, "a")
    for file in (folder / f"{Place('acme', 'broken').base}.lance" / "_versions").iterdir():
        file.write_bytes(b"garbage")
    fresh = await Library.open(folder, embedder)
    await Maintenance(fresh, folder).round()
    assert not (await fresh.shelf.standing(NOTES)).unclean
    await fresh.close()


async def test_writing_and_searching_beside_upkeep_lose_nothing(
    library: Library, embedder: MiniLmEmbedder, folder: Path
) -> None:
    other = await Library.open(folder, embedder)
    upkeep, entries = Maintenance(other, folder), [await doc(embedder, f"d{n}", f"key {n}") for n in range(12)]
    await library.replace("acme", "notes", [await doc(embedder, "first", "the key")])
    done = False

    async def keep_tidy() -> None:
        while not done:
            await upkeep.optimise(NOTES)

    async def write() -> None:
        nonlocal done
        for entry in entries:
            await library.replace("acme", "notes", [entry])
            assert (await library.search("acme", "notes", "key")).passages
        done = True

    await asyncio.gather(keep_tidy(), write())
    found = await library.search("acme", "notes", "key", 50)
    assert len({passage.document_id for passage in found.passages}) == len(found.passages) == 13
    await other.close()


async def test_a_turn_is_one_holders(tmp_path: Path) -> None:
    one, two = Locks(tmp_path), Locks(tmp_path)
    async with one.turn("a"):
        with pytest.raises(Taken):
            async with two.turn("a", wait=False):
                pass
        with pytest.raises(Taken):
            async with one.turn("a", wait=False):
                pass
        async with two.turn("b", wait=False):
            pass
        waiting = asyncio.create_task(_hold(two, "a"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    await waiting


async def _hold(locks: Locks, name: str) -> None:
    async with locks.turn(name):
        pass
