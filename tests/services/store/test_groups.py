"""Whom documents are for and which groups keys are in, on both databases."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.records import NewDocument
from app.services.store.store import Store
from app.sight import EVERYTHING, OPEN, Sight
from graphs.errors import Invalid, Missing

ODD = 'o\'hara "board" %_😀'


@pytest_asyncio.fixture
async def store(store_url: str) -> AsyncIterator[Store]:
    opened = await Store.open(store_url)
    for name, groups in {"open": (), "board": ("payroll", "board"), "odd": (ODD,)}.items():
        await opened.documents.put("a", "hr", [NewDocument(name, name, "t", 1, "", 1, {}, name, allow_groups=groups)])
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("sight", "seen"),
    [
        (OPEN, {"open"}),
        (Sight(frozenset({"sales"})), {"open"}),
        (Sight(frozenset({"pay", "payroll,board", "[]", "*", "%"})), {"open"}),
        (Sight(frozenset({"board", "sales"})), {"open", "board"}),
        (Sight(frozenset({ODD})), {"open", "odd"}),
        (EVERYTHING, {"open", "board", "odd"}),
    ],
)
async def test_a_document_is_read_listed_and_counted_by_those_alone_whom_it_is_for(
    store: Store, sight: Sight, seen: set[str]
) -> None:
    documents = store.documents
    assert {each.document_id for each in (await documents.list("a", sight=sight)).items} == seen
    assert {each.document_id for each in (await documents.list("a", "hr", text="o", sight=sight)).items} <= seen
    (held,) = await documents.collections("a", sight)
    assert (held.documents, held.chunks, held.size_bytes) == (len(seen), len(seen), len(seen))
    for name in ("open", "board", "odd"):
        assert bool(await documents.find("a", name, sight)) == (name in seen)
        if name in seen:
            assert (await documents.get("a", "hr", name, sight)).document_id == name
            assert await documents.text("a", "hr", name, sight) == name
            continue
        for read in (documents.get("a", "hr", name, sight), documents.text("a", "hr", name, sight)):
            with pytest.raises(Missing) as hidden:
                await read
            with pytest.raises(Missing) as absent:
                await documents.get("a", "hr", "never", sight)
            assert hidden.value.message == absent.value.message


async def test_whom_a_document_is_for_can_be_said_anew(store: Store) -> None:
    assert (await store.documents.relabel("a", "hr", "open", ("sales",), "operator")).trust == "operator"
    assert (await store.documents.list("a")).items == []
    assert await store.documents.text("a", "hr", "open", Sight(frozenset({"sales"}))) == "open"
    with pytest.raises(Missing):
        await store.documents.relabel("b", "hr", "open", (), "operator")


async def test_a_collection_of_hidden_documents_alone_is_not_listed(store: Store) -> None:
    await store.documents.put("a", "mergers", [NewDocument("m", "", "t", 1, "", 1, {}, "m", allow_groups=("board",))])
    assert [each.name for each in await store.documents.collections("a")] == ["hr"]


async def test_a_key_is_in_the_groups_it_was_last_put_into(store: Store) -> None:
    record, secret = await store.keys.create("a", "ann", ["chat"], "", groups=["payroll", ODD, "payroll"])
    assert record.groups == tuple(sorted(["payroll", ODD]))
    found = await store.keys.verify(secret)
    assert found is not None
    assert found.groups == record.groups
    assert (await store.keys.find(record.key_id)) == record
    assert (await store.keys.regroup(record.key_id, ["sales"])).groups == ("sales",)
    changed = await store.keys.verify(secret)
    assert changed is not None
    assert changed.groups == ("sales",)
    await store.keys.revoke(record.key_id, None)
    assert await store.keys.find(record.key_id) is None
    with pytest.raises(Missing):
        await store.keys.regroup("never", [])


@pytest.mark.parametrize("group", ["", "*", " x", "x ", "a\nb", "\x00", "\ud800", "x" * 129])
async def test_an_odd_name_is_no_group(store: Store, group: str) -> None:
    with pytest.raises(Invalid) as caught:
        await store.keys.create("a", "ann", ["chat"], "", groups=[group])
    assert caught.value.field == "groups"
