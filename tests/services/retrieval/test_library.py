import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.services.retrieval import tidying
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.filters import facet
from app.services.retrieval.library import IndexFailed, Library
from app.services.retrieval.place import Place
from app.services.retrieval.table import facet_lines, table_name, words
from graphs.errors import Conflict, Missing
from tests.services.retrieval.entries import doc


@pytest.fixture
async def library(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(tmp_path / "lance", embedder)
    yield made
    await made.close()


async def found(library: Library, query: str = "key", tenant: str = "acme", **kwargs: Any) -> list[str]:
    retrieval = await library.search(tenant, "notes", query, **kwargs)
    return [passage.document_id for passage in retrieval.passages]


async def test_a_tenant_never_sees_anothers_collection_of_the_same_name(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "ours", "the key of acme")])
    await library.replace("rival", "notes", [await doc(embedder, "theirs", "the key of rival")])
    assert await found(library) == ["ours"]
    assert await found(library, tenant="rival") == ["theirs"]
    with pytest.raises(Missing):
        await library.search("third", "notes", "key")


def test_table_names_are_apart_for_every_split_of_the_same_letters() -> None:
    names = {table_name(*pair) for pair in (("a", "bc"), ("ab", "c"), ("a/b", "c"), ("a", "b/c"), ("", "abc"))}
    assert len(names) == 5
    assert all(name.replace("_", "").isalnum() for name in names)


async def test_an_exact_identifier_is_found_before_its_common_words(library: Library, embedder: MiniLmEmbedder) -> None:
    decoys = [
        await doc(embedder, f"decoy{i}", f"The owner of pilothouse keeps a key; the quota of owner {i} is exhausted.")
        for i in range(20)
    ]
    named = await doc(embedder, "named", "Set PILOTHOUSE_OWNER_KEY before the start.")
    coded = await doc(embedder, "coded", "Such a call ends with quota_exhausted and a time to wait.")
    await library.replace("acme", "notes", [*decoys, named, coded])
    assert (await found(library, "what is PILOTHOUSE_OWNER_KEY"))[0] == "named"
    assert (await found(library, "quota_exhausted"))[0] == "coded"


async def test_stems_are_found(library: Library, embedder: MiniLmEmbedder) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "a", "Rotating credentials")])
    table = (await library.shelf.snapshot(Place("acme", "notes"))).table
    hits = await table.query().nearest_to_text("rotation credential", columns="words").select(["_score"]).to_list()
    assert len(hits) == 1


async def test_replacing_leaves_no_chunk_of_the_old_state(library: Library, embedder: MiniLmEmbedder) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "a", ["one key", "two key", "three key"])])
    await library.replace("acme", "notes", [await doc(embedder, "b", "other key"), await doc(embedder, "a", "two key")])
    held = await library.states("acme", "notes", ["a", "b"])
    assert {name: len(states) for name, states in held.items()} == {"a": 1, "b": 1}


async def test_the_same_text_keeps_its_chunk_id(library: Library, embedder: MiniLmEmbedder) -> None:
    entry = await doc(embedder, "a", ["one key", "two key"])
    await library.replace("acme", "notes", [entry])
    first = {passage.chunk_id for passage in (await library.search("acme", "notes", "key")).passages}
    await library.replace("acme", "notes", [entry])
    again = {passage.chunk_id for passage in (await library.search("acme", "notes", "key")).passages}
    assert again == first
    assert len(again) == 2


async def test_every_row_of_a_small_collection_is_in_the_text_index_after_each_write(
    library: Library, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidying, "REST", 0.0)  # a slow machine would have it wait for the round
    for number in range(3):
        await library.replace("acme", "notes", [await doc(embedder, f"d{number}", f"key {number}")])
        table = (await library.shelf.snapshot(Place("acme", "notes"))).table
        assert (await table.index_stats("words_idx")).num_unindexed_rows == 0


async def test_every_write_gives_a_new_version(library: Library, embedder: MiniLmEmbedder) -> None:
    seen = []
    for text in ("one", "two"):
        await library.replace("acme", "notes", [await doc(embedder, "a", text)])
        seen.append(await library.version("acme", "notes"))
    await library.remove("acme", "notes", "a")
    seen.append(await library.version("acme", "notes"))
    assert len(set(seen)) == 3
    assert all(version.startswith("notes@") for version in seen)
    assert await found(library) == []


async def test_removing_what_is_not_held_does_nothing(library: Library) -> None:
    await library.remove("acme", "notes", "a")
    assert await library.states("acme", "notes", ["a"]) == {}


async def test_vectors_of_two_embedders_never_mix(
    library: Library, embedder: MiniLmEmbedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await library.replace("acme", "notes", [await doc(embedder, "a", "key")])
    monkeypatch.setattr(MiniLmEmbedder, "id", "another@1")
    other = await Library.open(tmp_path / "lance", embedder)
    with pytest.raises(Conflict, match="rebuilt"):
        await other.search("acme", "notes", "key")
    await other.close()


async def test_a_second_process_sees_each_commit(library: Library, embedder: MiniLmEmbedder, tmp_path: Path) -> None:
    other = await Library.open(tmp_path / "lance", embedder)
    for number in range(3):
        await library.replace("acme", "notes", [await doc(embedder, f"d{number}", f"key {number}")])
        assert len(await found(other)) == number + 1
        assert await other.version("acme", "notes") == await library.version("acme", "notes")
    await other.close()


async def test_writers_in_one_process_lose_nothing(library: Library, embedder: MiniLmEmbedder) -> None:
    entries = [await doc(embedder, f"d{number}", f"key {number}") for number in range(12)]
    await asyncio.gather(*(library.replace("acme", "notes", [entry]) for entry in entries))
    assert len(await found(library, limit=50)) == 12


# Vectors are made up: the writers' commits are what is tried, and loading the model twice more would take longer.
WRITER = """
import asyncio, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from app.services.retrieval.library import Library
from tests.services.retrieval.entries import Doc, Piece

def made_up(name, text):
    return Doc(name, "", (Piece(text),), np.full((1, 384), 384**-0.5, np.float32))

async def main(folder, embedder, name):
    library = await Library.open(Path(folder), SimpleNamespace(id=embedder, dimensions=384))
    for number in range(4):
        entries = [made_up(f"{name}-{number}", f"key {number} of {name}"), made_up("shared", "the shared key")]
        await library.replace("acme", "notes", entries)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.timeout(300)  # importing lancedb twice more took half a minute on a crowded machine
async def test_d04_writers_in_several_processes_lose_and_double_nothing(library: Library, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "lance"), MiniLmEmbedder.id]
    writers = [await asyncio.create_subprocess_exec(*command, name) for name in ("one", "two")]
    assert [await writer.wait() for writer in writers] == [0, 0]
    documents = await found(library, limit=100)
    assert len(documents) == len(set(documents)) == 9


async def test_a_damaged_table_says_so_and_hurts_no_other(
    library: Library, embedder: MiniLmEmbedder, tmp_path: Path
) -> None:
    for tenant in ("acme", "rival"):
        await library.replace(tenant, "notes", [await doc(embedder, "a", "key")])
    for file in (tmp_path / "lance" / f"{table_name('acme', 'notes')}.lance" / "data").iterdir():
        file.write_bytes(b"garbage")
    fresh = await Library.open(tmp_path / "lance", embedder)
    with pytest.raises(IndexFailed):
        await fresh.search("acme", "notes", "key")
    assert await found(fresh, tenant="rival") == ["a"]
    await fresh.close()


INJECTIONS = [
    "en' OR x LIKE '%",
    "' OR '1'='1",
    "en\n\nsecret=true",
    '"\nlang="en',
    "en\\",
    "%",
    "_",
    "en'; DROP TABLE notes; --",
    "*",
    "\x00",
    "\ud800",
    "en\u0000",
]


@given(st.one_of(st.sampled_from(INJECTIONS), st.text(alphabet=st.characters(exclude_categories=()))))
def test_a_facet_line_matches_only_the_equal_value(value: str) -> None:
    line = facet_lines([facet("lang", value)])
    assert line.count("\n") == 2
    assert line.startswith("\nlang=")
    assert (line in facet_lines([facet("lang", "en"), facet("level", 1)])) == (value == "en")


async def test_no_filter_value_reaches_beyond_equality(library: Library, embedder: MiniLmEmbedder) -> None:
    await library.replace(
        "acme",
        "notes",
        [
            await doc(embedder, "en", "key", lang="en", secret=True),
            *[await doc(embedder, f"odd{i}", "key", lang=value) for i, value in enumerate(INJECTIONS)],
        ],
    )
    assert await found(library, where={"lang": "en"}) == ["en"]
    for number, value in enumerate(INJECTIONS):
        assert await found(library, where={"lang": value}) == [f"odd{number}"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(value=st.text(min_size=1, max_size=30))
async def test_a_filter_that_nothing_equals_finds_nothing(value: str, shelf: Library) -> None:
    assert await found(shelf, where={"lang": f"{value}?"}) == []


@pytest.fixture
async def shelf(library: Library, embedder: MiniLmEmbedder) -> Library:
    await library.replace("acme", "notes", [await doc(embedder, "en", "key", lang="en")])
    return library


@pytest.mark.parametrize(
    ("text", "joined"),
    [
        ("see PILOTHOUSE_OWNER_KEY.", "pilothouseownerkey"),
        ("at /api/ai/chat now", "apiaichat"),
        ("version v1.2.3", "v123"),
        ("plain words", ""),
    ],
)
def test_identifiers_are_indexed_whole_too(text: str, joined: str) -> None:
    assert words(text).removeprefix(text).strip() == joined
