"""Documents for some groups only: the index keeps them from everybody else, on every way into it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.explain import explain
from app.services.retrieval.groups import has_groups
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.query import Query
from app.services.retrieval.rebuild import Rebuild, embedded_anew
from app.services.retrieval.retriever import TenantRetriever
from app.services.retrieval.versions import VersionGone
from app.sight import EVERYTHING, OPEN, Sight
from app.telemetry.spans import RunTrace
from graphs.errors import Invalid
from graphs.types import Passage
from tests.services.retrieval.entries import doc

MEMBER = Sight(frozenset({"payroll", "other"}))
STRANGER = Sight(frozenset({"sales"}))
OPENLY = "Salaries are paid on the last working day of the month."
SECRET = "Salaries of the board rise by nine percent in June."


@pytest_asyncio.fixture
async def library(tmp_path: Path, embedder: MiniLmEmbedder) -> AsyncIterator[Library]:
    opened = await Library.open(tmp_path / "lance", embedder)
    yield opened
    await opened.close()


async def put(library: Library, name: str, texts: str | Sequence[str], *groups: str) -> None:
    await library.replace("acme", "hr", [await doc(library.embedder, name, texts, allow_groups=groups)])


async def both(library: Library) -> None:
    await put(library, "open", OPENLY)
    await put(library, "board", SECRET, "payroll")


async def found(library: Library, sight: Sight, as_of: str | None = None, **asked: Any) -> list[str]:
    query = Query.checked("when do salaries rise?", **asked)
    return [each.document_id for each in (await library.look("acme", "hr", query, as_of, sight)).passages]


async def test_who_is_in_no_group_of_a_document_does_not_find_it(library: Library) -> None:
    await both(library)
    assert set(await found(library, MEMBER)) == {"open", "board"}
    assert set(await found(library, EVERYTHING)) == {"open", "board"}
    assert await found(library, STRANGER) == ["open"]
    assert await found(library, OPEN) == ["open"]
    assert (await library.search("acme", "hr", "salaries of the board")).passages[0].document_id == "open"


@pytest.mark.parametrize(
    "asked",
    [
        {"rerank": "maxsim"},
        {"diversity": 0.9},
        {"neighbours": 3},
        {"limit": 100},
        {"where": {"not": {"absent": 1}}},
        {"where": {"or": [{"absent": 1}, {"not": {"absent": 1}}]}},
    ],
)
async def test_no_way_of_searching_shows_what_is_hidden(library: Library, asked: dict[str, Any]) -> None:
    await put(library, "open", [OPENLY, "Bonuses follow in March.", "Nothing else is paid."])
    await put(library, "board", [SECRET, "The chair gets eleven.", "Nobody is to know."], "payroll")
    assert set(await found(library, STRANGER, **asked)) == {"open"}
    assert set(await found(library, MEMBER, **asked)) == {"open", "board"}


async def test_an_explanation_says_nothing_of_what_is_hidden(library: Library) -> None:
    """Not its place, nor that its words made others rarer or commoner."""
    await put(library, "open", OPENLY)
    query = Query.checked("when do salaries rise?", 1)
    alone = explain(await library.look("acme", "hr", query, None, STRANGER))
    for number in range(5):
        await put(library, f"board{number}", SECRET, "payroll")
    beside = explain(await library.look("acme", "hr", query, None, STRANGER))
    assert [each.passage.document_id for each in beside] == ["open"]
    assert [(each.rank, each.vector_rank, each.text_rank, each.fused) for each in beside] == [
        (each.rank, each.vector_rank, each.text_rank, each.fused) for each in alone
    ]
    assert (alone[0].bm25 is None, beside[0].bm25) == (False, None)
    assert len(explain(await library.look("acme", "hr", query, None, MEMBER))) == 6


async def test_a_member_of_a_small_group_finds_as_much_as_if_the_rest_were_not_there(library: Library) -> None:
    """Hidden rows that lie nearer to the question, 300 of them and 100 candidates a leg, push nothing out."""
    entries = [
        await doc(library.embedder, f"near{number}", f"When do salaries rise? Case {number}.", allow_groups=("board",))
        for number in range(300)
    ]
    far = [
        await doc(library.embedder, f"far{number}", f"Wages go up in month {number}.", allow_groups=("payroll",))
        for number in range(10)
    ]
    await library.replace("acme", "hr", entries + far)
    assert set(await found(library, MEMBER, limit=10)) == {each.document_id for each in far}
    assert all(name.startswith("near") for name in await found(library, EVERYTHING, limit=10))


@pytest.mark.parametrize(
    "name", ["o'hara", "x') OR 1=1 --", "*')", "it''s", "a\\", '"', "😀 ops", "*", "payroll', 'sales"]
)
async def test_no_groups_name_is_read_as_anything_else(library: Library, name: str) -> None:
    await both(library)
    await put(library, "odd", "Salaries of odd groups rise.", name)
    assert "board" not in await found(library, Sight(frozenset({name})))
    if name != "*":  # which no document may name: it stands for everyone
        assert "odd" not in await found(library, STRANGER)
        assert "odd" in await found(library, Sight(frozenset({name})))


@pytest.mark.parametrize("key", ["allow_groups", "allowGroups", "ALLOW_GROUPS"])
@pytest.mark.parametrize("test", ["payroll", {"in": ["payroll", "*"]}, {"ne": "x"}, {"exists": True}])
async def test_a_filter_on_the_groups_is_refused(library: Library, key: str, test: Any) -> None:
    await both(library)
    for where in ({key: test}, {"or": [{"a": 1}, {"not": {key: test}}]}):
        with pytest.raises(Invalid):
            await found(library, STRANGER, where=where)


async def test_changed_groups_count_at_once_and_for_earlier_versions_too(library: Library) -> None:
    await both(library)
    before = await library.version("acme", "hr")
    assert set(await found(library, MEMBER, before)) == {"open", "board"}
    assert await found(library, STRANGER, before) == ["open"]

    await library.relabel("acme", "hr", "open", ["payroll"], "tenant")
    assert await found(library, STRANGER) == await found(library, STRANGER, before) == []
    assert set(await found(library, MEMBER, before)) == {"open", "board"}

    await library.relabel("acme", "hr", "board", [], "tenant")
    assert await found(library, STRANGER) == await found(library, STRANGER, before) == ["board"]


async def test_a_change_of_groups_is_one_commit(library: Library) -> None:
    await put(library, "board", [f"Salaries rise, part {number}." for number in range(40)], "payroll")
    seen = set[int]()

    async def watch() -> None:
        while True:
            seen.add(len(await found(library, STRANGER, limit=100)))

    await found(library, STRANGER)
    watching = asyncio.create_task(watch())
    await library.relabel("acme", "hr", "board", [], "tenant")
    await library.relabel("acme", "hr", "board", ["payroll"], "tenant")
    await asyncio.sleep(0.05)
    watching.cancel()
    assert seen <= {0, 40}


async def test_a_rebuilt_collection_keeps_groups_and_trust(library: Library) -> None:
    await both(library)
    rebuild = Rebuild(library)

    async def remake(documents: Any) -> Any:
        made = await embedded_anew(library.embedder)(documents)
        # While the build is made: it is caught up with, though no chunk and no state has changed.
        await library.relabel("acme", "hr", "open", ["sales"], "operator")
        return made

    version = await rebuild.build("acme", "hr", remake)
    candidate = (await library.shelf.standing(Place("acme", "hr"))).candidate or ""
    table = await library.shelf.open(Place("acme", "hr"), candidate)
    rows = (await table.query().select(["document_id", "allow_groups", "trust"]).to_arrow()).to_pylist()
    assert {row["document_id"]: (row["allow_groups"], row["trust"]) for row in rows} == {
        "open": (["sales"], "operator"),
        "board": (["payroll"], "tenant"),
    }
    assert await found(library, MEMBER, version) == ["board"]
    await library.relabel("acme", "hr", "board", ["sales"], "tenant")
    assert set(await found(library, STRANGER, version)) == {"open", "board"}


async def test_a_collection_from_before_groups_is_everyones_and_its_old_versions_are_gone(
    tmp_path: Path, embedder: MiniLmEmbedder
) -> None:
    import lancedb

    new = await Library.open(tmp_path, embedder)
    await put(new, "open", OPENLY)
    await new.close()
    database = await lancedb.connect_async(str(tmp_path), read_consistency_interval=timedelta(0))
    table = await database.open_table(Place("acme", "hr").table(""))
    await table.drop_columns(["allow_groups", "trust"])
    old = await table.version()

    libraries = [await Library.open(tmp_path, embedder) for _ in range(2)]
    assert await asyncio.gather(*(found(each, OPEN) for each in libraries)) == [["open"], ["open"]]
    assert await has_groups(table)
    passage = (await libraries[0].search("acme", "hr", "salaries")).passages[0]
    assert passage.trust == "untrusted"
    await put(libraries[1], "board", SECRET, "payroll")
    assert set(await found(libraries[0], MEMBER)) == {"open", "board"}
    assert await found(libraries[0], STRANGER) == ["open"]
    with pytest.raises(VersionGone):
        await found(libraries[0], MEMBER, f"hr@{old}")
    for each in libraries:
        await each.close()


async def test_rows_that_say_nothing_are_seen_by_nobody_but_the_owner(library: Library) -> None:
    await put(library, "open", OPENLY)
    table = await library.shelf.open(Place("acme", "hr"), "")
    await table.update(updates_sql={"allow_groups": "arrow_cast(NULL, 'List(Utf8)')"})
    assert await found(library, OPEN) == await found(library, MEMBER) == []
    assert await found(library, EVERYTHING) == ["open"]


async def test_a_tenants_groups_mean_nothing_in_the_collection_that_all_share(library: Library) -> None:
    entry = await doc(library.embedder, "page", "Salaries.", allow_groups=("payroll",))
    await library.replace("_shared", "handbook", [entry])
    for sight in (MEMBER, EVERYTHING):
        retriever = TenantRetriever(library, "acme", RunTrace("run"), sight)
        assert (await retriever.search("salaries")).passages == ()


async def test_t12_every_passage_says_how_far_its_source_is_trusted(library: Library) -> None:
    await both(library)
    assert {each.trust for each in (await library.search("acme", "hr", "salaries")).passages} == {"tenant"}
    await library.relabel("acme", "hr", "open", [], "untrusted")
    assert (await library.search("acme", "hr", "salaries")).passages[0].trust == "untrusted"
    assert Passage("c", "d", "", "", 0, 0, 0.0, "x").trust == "untrusted"
