"""What a search can be asked "as of", and what erasure takes from it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import Rebuild, embedded_anew
from app.services.retrieval.versions import VersionGone, parsed
from graphs.errors import Missing
from tests.services.retrieval.entries import doc

NOTES = Place("acme", "notes")


@pytest.fixture
async def library(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(tmp_path / "lance", embedder)
    yield made
    await made.close()


async def texts(library: Library, as_of: str | None = None) -> list[str]:
    found = await library.search("acme", "notes", "the key", as_of=as_of)
    assert as_of in (None, found.index_version)
    return sorted(passage.text for passage in found.passages)


def files_with(folder: Path, word: str) -> list[Path]:
    """Tokens of the text index are in lower case."""
    return [path for path in folder.rglob("*") if path.is_file() and word.lower().encode() in path.read_bytes().lower()]


async def test_a_search_can_be_asked_as_of_the_version_that_an_answer_recorded(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "a", "the old key")])
    before = (await library.search("acme", "notes", "key")).index_version
    await library.replace("acme", "notes", [await doc(embedder, "a", "the new key")])
    assert await texts(library) == ["the new key"]
    assert await texts(library, before) == ["the old key"]
    assert before in {version.label for version in await library.versions("acme", "notes")}


@pytest.mark.parametrize("wrong", ["notes@999999", "notes@0", "other@1", "notes", "notes@abcdef12.3", "notes@1'--", ""])
async def test_a_version_that_never_was_is_missing(library: Library, embedder: MiniLmEmbedder, wrong: str) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "a", "the key")])
    with pytest.raises(Missing) as caught:
        await library.search("acme", "notes", "key", as_of=wrong)
    assert caught.value.code == "not_found"


async def test_a_version_of_another_tenant_is_missing(library: Library, embedder: MiniLmEmbedder) -> None:
    for _ in range(3):
        await library.replace("rival", "notes", [await doc(embedder, "a", "the key")])
    theirs = await library.version("rival", "notes")
    with pytest.raises(Missing):
        await library.search("acme", "notes", "key", as_of=theirs)


async def test_no_version_that_held_an_erased_document_can_be_searched(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "a", "the key")])
    clean = await library.version("acme", "notes")
    await library.replace("acme", "notes", [await doc(embedder, "b", "the secret key")])
    held = await library.version("acme", "notes")
    await library.remove("acme", "notes", "b")
    for version in (clean, held):
        with pytest.raises(VersionGone):
            await library.search("acme", "notes", "key", as_of=version)
    assert held not in {version.label for version in await library.versions("acme", "notes")}
    # Coming back under the same id does not bring the erased text back.
    await library.replace("acme", "notes", [await doc(embedder, "b", "another key")])
    with pytest.raises(VersionGone):
        await library.search("acme", "notes", "key", as_of=held)
    assert await texts(library, await library.version("acme", "notes")) == ["another key", "the key"]


async def test_t12_a_purge_takes_erased_text_from_every_file(
    library: Library, embedder: MiniLmEmbedder, tmp_path: Path
) -> None:
    """One chunk among many: joining files alone would leave it in the file, the words in the text index."""
    rest = [await doc(embedder, f"d{number}", f"the key {number}") for number in range(40)]
    await library.replace("acme", "notes", [*rest, await doc(embedder, "x", "the Zanzibarian key")])
    await Rebuild(library).build("acme", "notes", embedded_anew(embedder))
    held = await library.version("acme", "notes")
    await library.remove("acme", "notes", "x")
    assert files_with(tmp_path / "lance", "zanzibarian")
    assert await Rebuild(library).purge(NOTES)
    assert files_with(tmp_path / "lance", "zanzibarian") == []
    assert len((await library.search("acme", "notes", "the key", 100)).passages) == 40
    with pytest.raises(VersionGone):
        await library.search("acme", "notes", "key", as_of=held)
    assert not await Rebuild(library).purge(NOTES)


async def test_readers_of_another_process_go_on_after_a_purge(
    library: Library, embedder: MiniLmEmbedder, tmp_path: Path
) -> None:
    other = await Library.open(tmp_path / "lance", embedder)
    await library.replace("acme", "notes", [await doc(embedder, name, f"the key {name}") for name in ("a", "b")])
    assert len(await texts(other)) == 2
    await library.remove("acme", "notes", "b")
    await Rebuild(library).purge(NOTES)
    assert await texts(other) == ["the key a"]
    await other.replace("acme", "notes", [await doc(embedder, "c", "the key c")])
    assert await texts(library) == ["the key a", "the key c"]
    await other.close()


def test_a_label_is_read_back() -> None:
    assert parsed("notes@7", "notes") == ("", 7)
    assert parsed("notes@0a1b2c3d.7", "notes") == ("0a1b2c3d", 7)
