"""What changed a collection when, and what became of its builds."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.console.knowledge_versions import Told, changed, timeline
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.gate import Golden, Thresholds
from app.services.retrieval.history import History, history
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.place import Place
from app.services.retrieval.rebuild import Rebuild, embedded_anew
from app.sight import Sight
from tests.services.retrieval.entries import doc

SOUND = Thresholds(max_size_ratio=10, latency_slack_ms=60_000)  # the machine is shared
GOLDEN = [Golden("who keeps the tide tables?", "harbour")]


@pytest.fixture
async def library(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    made = await Library.open(tmp_path / "lance", embedder)
    await made.replace("acme", "notes", [await doc(embedder, "harbour", "The harbour master keeps the tide tables.")])
    await made.replace("acme", "notes", [await doc(embedder, "menu", "On Friday fish is cooked.")])
    yield made
    await made.close()


async def told(library: Library) -> History:
    return await history(library, "acme", "notes", 25)


async def test_a_version_says_how_many_documents_it_has_and_what_it_changed(library: Library) -> None:
    found = await told(library)
    newest = found.changes[0]
    assert (newest.role, newest.documents, newest.version.rows) == ("live", 2, 2)
    words = [changed(each) for each in found.changes]
    assert words[-3:] == ["1 added", "1 added", "first held"]
    assert (found.waiting, found.before, found.erased) == ("", "", {})


async def test_a_promotion_is_told_with_the_figures_of_its_gate_and_so_is_the_way_back(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    rebuild = Rebuild(library)
    first = await library.version("acme", "notes")
    await rebuild.build("acme", "notes", embedded_anew(embedder))
    waiting = await told(library)
    assert (waiting.waiting != "", waiting.before) == (True, "")
    assert {each.role for each in waiting.changes} == {"live", "waiting"}
    assert (await rebuild.promote("acme", "notes", GOLDEN, SOUND)).passed
    after = await told(library)
    assert (after.waiting, after.before.partition("@")[0]) == ("", "notes")
    gates = [each.gate for each in timeline(after) if isinstance(each, Told) and each.gate is not None]
    assert [(gate["candidate"]["recall"], gate["questions"]) for gate in gates] == [(1.0, 1)]
    # Versions that changed no row, as indexing's, are not told: `first` is one of them.
    before = [int(each.version.label.partition("@")[2]) for each in after.changes if each.role == "before"]
    assert min(before) < int(first.partition("@")[2])


async def test_erasure_names_the_first_version_that_no_longer_held_the_text(library: Library) -> None:
    await library.remove("acme", "notes", "menu")
    found = await told(library)
    (erased,) = [each for each in timeline(found) if isinstance(each, Told)]
    assert found.erased[""] in erased.detail
    assert "410" in erased.detail
    assert [each.documents for each in found.changes if each.gained is None] == [1]


async def test_builds_that_go_with_erased_text_are_named_where_it_is_purged_and_in_the_history(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    rebuild = Rebuild(library)
    await rebuild.build("acme", "notes", embedded_anew(embedder))
    assert (await rebuild.promote("acme", "notes", GOLDEN, SOUND)).passed
    await rebuild.build("acme", "notes", embedded_anew(embedder))
    await library.remove("acme", "notes", "menu")
    assert await Maintenance(library, None).optimise(Place("acme", "notes")) == ("before", "waiting")
    found = await told(library)
    assert (found.waiting, found.before) == ("", "")
    assert [(each.build, each.why) for each in found.dropped] == [("waiting", "erasure"), ("before", "erasure")]
    words = [each.words for each in timeline(found) if isinstance(each, Told)]
    assert {"The build that waited is gone", "No way back any more"} <= set(words)
    assert await Maintenance(library, None).optimise(Place("acme", "notes")) == ()


async def test_a_waiting_build_that_another_replaces_is_told_as_well(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    for _ in range(2):
        await Rebuild(library).build("acme", "notes", embedded_anew(embedder))
    assert [(each.build, each.why) for each in (await told(library)).dropped] == [("waiting", "rebuild")]


async def test_documents_for_others_count_for_nothing_in_the_history(
    library: Library, embedder: MiniLmEmbedder
) -> None:
    sealed = replace(await doc(embedder, "orders", "The sealed orders."), allow_groups=("bridge",))
    await library.replace("acme", "notes", [sealed])
    seen = (await told(library)).changes[0]
    assert (seen.documents, seen.chunks, seen.size_bytes, seen.added) == (2, 2, None, 0)
    whole = (await history(library, "acme", "notes", 25, Sight(frozenset({"bridge"})))).changes[0]
    assert (whole.documents, whole.chunks) == (3, 3)
    assert whole.size_bytes == whole.version.size_bytes
