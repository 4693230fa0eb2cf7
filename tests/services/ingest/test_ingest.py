from typing import Any

import pytest

from app.services.ingest.ingest import Ingest, Progress, Source
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.store.store import Store
from graphs.errors import DocumentUnreadable, Invalid, Missing
from tests.services.ingest.office import xlsx

OLD = "# Keys\n\nThe old key hangs behind the door.\n"
NEW = "# Keys\n\nThe new key lies under the mat.\n\n## Spare\n\nThe spare one is with the neighbour.\n"


async def texts(library: Library, collection: str = "notes", query: str = "key") -> set[str]:
    return {passage.text for passage in (await library.search("acme", collection, query)).passages}


async def test_a_document_is_found_and_its_passage_opens_in_the_stored_text(
    ingest: Ingest, library: Library, store: Store
) -> None:
    record = await ingest.add("acme", "notes", "keys", NEW.replace("\n", "\r\n"), metadata={"lang": "en"})
    assert (record.title, record.chunks, record.media_type) == ("Keys", 2, "text/markdown")
    passage = (await library.search("acme", "notes", "spare key", where={"lang": "en"})).passages[0]
    text = await store.documents.text("acme", "notes", "keys")
    assert text[passage.start : passage.end] == passage.text == "The spare one is with the neighbour."
    assert (passage.title, passage.heading, passage.metadata) == ("Keys", "Spare", {"lang": "en"})


async def test_a_new_state_takes_the_place_of_the_old_one(ingest: Ingest, library: Library) -> None:
    await ingest.add("acme", "notes", "keys", NEW)
    await ingest.add("acme", "notes", "keys", OLD)
    assert await texts(library) == {"The old key hangs behind the door."}


async def test_the_same_state_changes_nothing(ingest: Ingest, library: Library) -> None:
    first = await ingest.add("acme", "notes", "keys", OLD, metadata={"a": 1, "b": 2})
    version = await library.version("acme", "notes")
    again = await ingest.add("acme", "notes", "keys", OLD.encode(), metadata={"b": 2, "a": 1})
    assert again == first
    assert await library.version("acme", "notes") == version


@pytest.mark.parametrize("change", [{"title": "Other"}, {"metadata": {"a": 2}}])
async def test_a_new_title_or_metadata_is_a_new_state(ingest: Ingest, library: Library, change: dict[str, Any]) -> None:
    await ingest.add("acme", "notes", "keys", OLD, metadata={"a": 1})
    version = await library.version("acme", "notes")
    await ingest.add("acme", "notes", "keys", OLD, **change)
    assert await library.version("acme", "notes") != version


async def test_a_removed_document_is_gone(ingest: Ingest, library: Library, store: Store) -> None:
    await ingest.add("acme", "notes", "keys", OLD)
    await ingest.remove("acme", "notes", "keys")
    assert await texts(library) == set()
    with pytest.raises(Missing):
        await store.documents.get("acme", "notes", "keys")
    with pytest.raises(Missing):
        await ingest.remove("acme", "notes", "keys")


async def test_an_unreadable_document_leaves_the_old_state(ingest: Ingest, library: Library) -> None:
    await ingest.add("acme", "notes", "keys", OLD)
    with pytest.raises(DocumentUnreadable):
        await ingest.add("acme", "notes", "keys", b"%PDF-1.4 broken", filename="keys.pdf")
    assert await texts(library) == {"The old key hangs behind the door."}


async def test_an_unreadable_first_document_makes_no_collection(ingest: Ingest, library: Library) -> None:
    with pytest.raises(DocumentUnreadable):
        await ingest.add("acme", "notes", "keys", "")
    with pytest.raises(Missing):
        await library.version("acme", "notes")


class Crash(Exception):
    """The process ends here."""


async def crash(*_: object, **__: object) -> None:
    raise Crash


@pytest.mark.parametrize("at", ["embed", "replace", "put"])
async def test_a_crash_leaves_one_state_and_a_retry_mends_it(
    at: str,
    ingest: Ingest,
    library: Library,
    embedder: MiniLmEmbedder,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await ingest.add("acme", "notes", "keys", OLD)
    with monkeypatch.context() as broken:
        broken.setattr({"embed": embedder, "replace": library, "put": store.documents}[at], at, crash)
        with pytest.raises(Crash):
            await ingest.add("acme", "notes", "keys", NEW)
    old, new = {"The old key hangs behind the door."}, {"The new key lies under the mat."}
    found = await texts(library, query="key door mat")
    assert found >= new if at == "put" else found == old
    await ingest.add("acme", "notes", "keys", NEW)
    assert await texts(library) == {*new, "The spare one is with the neighbour."}
    assert (await store.documents.get("acme", "notes", "keys")).chunks == 2


async def test_the_old_state_can_be_put_back_after_a_crash(
    ingest: Ingest, library: Library, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingest.add("acme", "notes", "keys", OLD)
    with monkeypatch.context() as broken:
        broken.setattr(store.documents, "put", crash)
        with pytest.raises(Crash):
            await ingest.add("acme", "notes", "keys", OLD.replace("door", "mirror"))
    await ingest.add("acme", "notes", "keys", OLD)
    assert await texts(library) == {"The old key hangs behind the door."}


async def test_a_removal_that_broke_off_is_mended_by_either_call(
    ingest: Ingest, library: Library, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingest.add("acme", "notes", "keys", OLD)
    with monkeypatch.context() as broken:
        broken.setattr(store.documents, "delete", crash)
        with pytest.raises(Crash):
            await ingest.remove("acme", "notes", "keys")
    await ingest.add("acme", "notes", "keys", OLD)
    assert await texts(library) == {"The old key hangs behind the door."}
    await ingest.remove("acme", "notes", "keys")
    assert await texts(library) == set()


async def test_each_document_of_a_batch_stands_for_itself(ingest: Ingest, library: Library) -> None:
    outcomes = await ingest.add_batch(
        "acme",
        "notes",
        [Source("a", "alpha"), Source("empty", ""), Source("line\nend", "x"), Source("", "x"), Source("a", "omega")],
    )
    assert [(outcome.id, outcome.ok) for outcome in outcomes] == [
        ("a", True),
        ("empty", False),
        ("line\nend", False),
        ("", False),
        ("a", True),
    ]
    assert await texts(library, query="alpha omega") == {"omega"}


@pytest.mark.parametrize("name", ["", "../x", "a b", ".x", "x" * 65])
async def test_an_odd_collection_is_refused(ingest: Ingest, name: str) -> None:
    with pytest.raises(Invalid) as caught:
        await ingest.add("acme", name, "keys", OLD)
    assert caught.value.field == "collection"


async def test_the_handbook_is_closed_to_callers(ingest: Ingest) -> None:
    with pytest.raises(Invalid, match="handbook"):
        await ingest.add("acme", "handbook", "keys", OLD)
    with pytest.raises(Invalid, match="handbook"):
        await ingest.remove("acme", "handbook", "keys")


@pytest.mark.parametrize("document_id", ["a/../b", 'O\'Brien "x" -- ; DROP', "鍵 %_*", "x" * 512])
async def test_any_printable_id_is_taken(ingest: Ingest, library: Library, document_id: str) -> None:
    await ingest.add("acme", "notes", "other", OLD)
    await ingest.add("acme", "notes", document_id, OLD)
    await ingest.remove("acme", "notes", document_id)
    assert list(await library.states("acme", "notes", ["other", document_id])) == ["other"]


@pytest.mark.parametrize("document_id", ["", " ", "a\nb", "a\x00", "\ud800", "x" * 513, "a\u202eb"])
async def test_an_unprintable_id_is_refused(ingest: Ingest, document_id: str) -> None:
    with pytest.raises(Invalid) as caught:
        await ingest.add("acme", "notes", document_id, OLD)
    assert caught.value.field == "id"


@pytest.mark.parametrize("metadata", [{"a": float("nan")}, {"a": object()}, {"a": "x" * 20_000}])
async def test_metadata_is_small_json(ingest: Ingest, metadata: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        await ingest.add("acme", "notes", "keys", OLD, metadata=metadata)
    assert caught.value.field == "metadata"


async def test_titles_and_metadata_survive_odd_characters(ingest: Ingest, library: Library) -> None:
    await ingest.add("acme", "notes", "keys", OLD, title="a\ud800\n\x00b", metadata={"odd": "\ud800 'x\""})
    assert (await library.search("acme", "notes", "key", where={"odd": "\ud800 'x\""})).passages


async def test_a_batch_says_of_each_document_what_happened_and_what_it_took(
    ingest: Ingest, library: Library, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ingest.add_batch("acme", "notes", [Source("same", OLD), Source("other", OLD)])
    embedded: list[str] = []
    embed = embedder.embed

    async def counted(texts: Any) -> Any:
        embedded.extend(texts)
        return await embed(texts)

    monkeypatch.setattr(embedder, "embed", counted)
    told: list[Progress] = []
    sources = [Source("same", OLD), Source("other", NEW), Source("new", "alpha"), Source("empty", "")]
    outcomes = await ingest.add_batch("acme", "notes", sources, told.append)
    assert [outcome.happened for outcome in outcomes] == ["unchanged", "replaced", "added", "failed"]
    ends = {progress.document_id: progress for progress in told if progress.happened}
    assert {name: end.happened for name, end in ends.items()} == {
        "same": "unchanged",
        "other": "replaced",
        "new": "added",
        "empty": "failed",
    }
    assert ends["empty"].reason == "the document is empty"
    stages = [progress.stage for progress in told if progress.document_id == "other" and not progress.happened]
    assert stages == ["parse", "chunk", "embed", "index"]
    assert all(progress.took_s > 0 for progress in told if progress.stage in {"parse", "embed", "index"})
    assert not [progress for progress in told if progress.document_id == "same" and progress.stage]
    assert not [text for text in embedded if "old key" in text]


async def test_the_row_of_a_table_can_be_found_and_filtered_by_its_place(ingest: Ingest, library: Library) -> None:
    await ingest.add("acme", "notes", "costs", xlsx(("item", "cost"), ("rope", 15)), metadata={"lang": "en"})
    passage = (await library.search("acme", "notes", "rope cost", where={"sheet": "Costs"})).passages[0]
    assert passage.metadata == {"sheet": "Costs", "row": 1, "lastRow": 2, "lang": "en"}
