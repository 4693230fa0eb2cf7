"""Real files of an index are broken: what that costs is one collection at most, and no answer is wrong."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from unittest.mock import AsyncMock

import pytest

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.gate import Thresholds
from app.services.retrieval.library import IndexDamaged, Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import Rebuild, embedded_anew
from tests.services.retrieval.entries import doc

NOTES = Place("acme", "notes")
Opened = Callable[[], Awaitable[Library]]


@pytest.fixture
async def folder(tmp_path: Path, embedder: MiniLmEmbedder) -> Path:
    """Two tenants with ten documents each."""
    library = await Library.open(tmp_path / "lance", embedder)
    for tenant in ("acme", "rival"):
        await library.replace(
            tenant, "notes", [await doc(embedder, f"d{each}", f"the key {each}") for each in range(10)]
        )
    await library.close()
    return tmp_path / "lance"


@pytest.fixture
async def opened(folder: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Opened]:
    """Opens the folder anew: a process that has nothing in memory."""
    made = list[Library]()

    async def open_() -> Library:
        made.append(await Library.open(folder, embedder))
        return made[-1]

    yield open_
    for library in made:
        await library.close()


def garbage(content: bytes) -> bytes:
    return b"garbage"


def truncated(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :]


def damage(folder: Path, part: str, how: Callable[[bytes], bytes], place: Place = NOTES, build: str = "") -> None:
    files = [file for file in (folder / f"{place.table(build)}.lance" / part).rglob("*") if file.is_file()]
    assert files
    for file in files:
        file.write_bytes(how(file.read_bytes()))


async def count(library: Library, tenant: str = "acme") -> int:
    return len((await library.search(tenant, "notes", "key 7", 50)).passages)


@pytest.mark.parametrize("how", [garbage, truncated, flipped])
async def test_d09_a_broken_index_is_bypassed_said_and_built_anew(
    folder: Path, opened: Opened, how: Callable[[bytes], bytes]
) -> None:
    damage(folder, "_indices", how)
    library = await opened()
    assert await count(library) == 10
    (found,) = library.damages
    assert (found.place, found.part) == (NOTES, "index")
    await Maintenance(library, folder).mend()
    assert library.damages == ()
    table = (await library.shelf.snapshot(NOTES)).table
    assert (await table.index_stats("words_idx")).num_unindexed_rows == 0
    assert await count(library) == 10


async def test_d09_maintenance_meets_a_broken_index_before_a_search_does(
    folder: Path, opened: Opened, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(folder, "_indices", garbage)
    library = await opened()
    with monkeypatch.context() as killed:  # between the commit of new rows and their indexing
        killed.setattr(library, "_tidy", AsyncMock())
        await library.replace("acme", "notes", [await doc(embedder, "new", "the new key")])
    maintenance = Maintenance(library, folder)
    await maintenance.round()
    assert [found.part for found in library.damages] == ["index"]
    await maintenance.mend()
    assert library.damages == ()
    assert await count(library) == 11


@pytest.mark.parametrize("part", ["data", "_versions"])
@pytest.mark.parametrize("how", [garbage, truncated])
async def test_d10_broken_rows_close_their_collection_alone(
    folder: Path, opened: Opened, part: str, how: Callable[[bytes], bytes]
) -> None:
    damage(folder, part, how)
    library = await opened()
    for _ in range(2):
        with pytest.raises(IndexDamaged) as caught:
            await count(library)
        assert caught.value.code == "index_damaged"
    assert await count(library, "rival") == 10
    assert [found.part for found in library.damages] == ["rows"]
    await Maintenance(library, folder).mend()
    assert [found.part for found in library.damages] == ["rows"]  # nothing to mend it with


async def test_d10_files_that_are_put_back_open_the_collection_again(folder: Path, opened: Opened) -> None:
    kept = {file: file.read_bytes() for file in (folder / f"{NOTES.base}.lance" / "data").iterdir()}
    damage(folder, "data", garbage)
    library = await opened()
    with pytest.raises(IndexDamaged):
        await count(library)
    for file, content in kept.items():
        file.write_bytes(content)
    await Maintenance(library, folder).mend()
    assert await count(library) == 10


@pytest.mark.parametrize("part", ["data", "_versions"])
async def test_d10_the_build_before_the_last_promotion_takes_over_by_itself(
    folder: Path, opened: Opened, embedder: MiniLmEmbedder, part: str
) -> None:
    library = await opened()
    rebuild = Rebuild(library)
    build = (await rebuild.build("acme", "notes", embedded_anew(embedder))).partition("@")[2].partition(".")[0]
    assert (await rebuild.promote("acme", "notes", [], Thresholds(min_questions=0, max_size_ratio=10))).passed
    await library.replace("acme", "notes", [await doc(embedder, "last", "the last key")])
    damage(folder, part, garbage, build=build)
    library = await opened()
    with pytest.raises(IndexDamaged):
        await count(library)
    await Maintenance(library, folder).mend()
    assert await count(library) == 11
    assert library.damages == ()


async def test_d10_a_damaged_collection_can_be_started_over(
    folder: Path, opened: Opened, embedder: MiniLmEmbedder
) -> None:
    damage(folder, "data", garbage)
    library = await opened()
    with pytest.raises(IndexDamaged):
        await count(library)
    await Rebuild(library).start_over(NOTES)
    await library.replace("acme", "notes", [await doc(embedder, "a", "the key")])
    assert await count(library) == 1
    assert library.damages == ()


# Vectors are made up: what is tried is where a kill meets a write, a removal or a tidying.
WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from app.services.retrieval.library import Library
from tests.services.retrieval.entries import Doc, Piece

async def main(folder, embedder):
    library = await Library.open(Path(folder), SimpleNamespace(id=embedder, dimensions=384))
    vector = np.full((1, 384), 384**-0.5, np.float32)
    for turn in itertools.count():
        batch = [Doc(f"d{each}", "", (Piece(f"the key of turn {turn}"),), vector) for each in range(10)]
        await library.replace("acme", "notes", batch)
        await library.replace("acme", "notes", [Doc("passing", "", (Piece("the key that goes"),), vector)])
        await library.remove("acme", "notes", "passing")
        print(turn, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.timeout(300)
async def test_d11_a_writer_killed_at_any_moment_leaves_whole_batches(
    folder: Path, opened: Opened, embedder: MiniLmEmbedder
) -> None:
    for grace_s in (0.0, 0.013, 0.029):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(folder), embedder.id, stdout=asyncio.subprocess.PIPE
        )
        assert writer.stdout is not None
        for _ in range(3):
            assert await writer.stdout.readline()
        await asyncio.sleep(grace_s)
        writer.kill()
        await writer.wait()
        library = await opened()
        found = (await library.search("acme", "notes", "the key", 50)).passages
        turns = {passage.text for passage in found if passage.document_id != "passing"}
        assert (len([passage for passage in found if passage.document_id != "passing"]), len(turns)) == (10, 1)
        await Maintenance(library, folder).round()
        assert len((await library.search("acme", "notes", "the key", 50)).passages) == len(found)
    assert library.damages == ()
