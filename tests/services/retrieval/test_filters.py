"""Filters: a closed language, the same answer from the index as from plain Python, and no way out of a literal."""

from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.filters import LIMIT_CONDITIONS, LIMIT_DEPTH, facets, holds, parse_filter
from app.services.retrieval.library import Library
from app.services.retrieval.place import Place
from app.services.retrieval.predicate import predicate
from graphs.errors import Invalid
from tests.services.retrieval.entries import Doc, Piece

INJECTIONS = [
    "x' OR x LIKE '%",
    "' OR '1'='1",
    "'; DROP TABLE notes; --",
    "en' --",
    "en\\' OR true --",
    '"\nlang="en',
    "en\n\nsecret=true",
    "${lang}",
    "{{lang}}",
    "%",
    "_",
    "\\",
    "''",
    "\x00",
    "\ud800",
    "ʼ OR 1=1",
    "*/ OR 1=1 /*",
]
KEYS = ["lang", "year", "and", "day", "x.y-z"]
VALUES: list[Any] = [*INJECTIONS, "en", "2020", "2026-01-02", "", 0, 1, 1.0, 2020, 2020.5, -3, 1e22, 10**30, True, None]
SHELF: list[dict[str, Any]] = [
    {},
    *({"lang": value, "secret": "x"} for value in VALUES),
    *({"year": value} for value in VALUES),
    {"and": "en", "x.y-z": 2},
    {"day": "2026-01-02", "year": 2026},
    {"day": "2025-12-31", "lang": "de", "odd key": 1, "nested": [1]},
]

scalars = st.sampled_from(VALUES) | st.text(max_size=8) | st.integers(-(10**6), 10**6) | st.booleans() | st.none()
bounds = st.sampled_from(["2020", "2026-01-01", "", "en", "~' OR 1=1 --", 0, 2020, 2020.5, -1e300, 10**30])
operators = st.one_of(
    st.fixed_dictionaries({"eq": scalars}),
    st.fixed_dictionaries({"ne": scalars}),
    st.fixed_dictionaries({"in": st.lists(scalars, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"exists": st.booleans()}),
    st.dictionaries(st.sampled_from(["lt", "lte", "gt", "gte"]), bounds, min_size=1, max_size=2),
)
leaves = st.dictionaries(st.sampled_from(KEYS), scalars | operators, min_size=1, max_size=2)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.fixed_dictionaries({"and": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"or": st.lists(inner, min_size=1, max_size=3)}),
        st.fixed_dictionaries({"not": inner}),
    ),
    max_leaves=4,
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table(tmp_path_factory: pytest.TempPathFactory, embedder: MiniLmEmbedder) -> AsyncIterator[Any]:
    """A real table with the whole shelf, each document named by its place."""
    library = await Library.open(tmp_path_factory.mktemp("lance"), embedder)
    vector = np.full((1, embedder.dimensions), embedder.dimensions**-0.5, np.float32)
    entries = [Doc(str(place), "", (Piece("key"),), vector, metadata) for place, metadata in enumerate(SHELF)]
    await library.replace("acme", "notes", entries)
    yield (await library.shelf.snapshot(Place("acme", "notes"))).table
    await library.close()


async def passing(table: Any, line: str) -> set[int]:
    rows = await table.query().where(line).select(["document_id"]).limit(1_000).to_arrow()
    return {int(place) for place in rows["document_id"].to_pylist()}


@pytest.mark.asyncio(loop_scope="module")
@settings(max_examples=60, deadline=None)
@given(where=filters)
async def test_v13_the_index_passes_exactly_what_the_filter_means(table: Any, where: dict[str, Any]) -> None:
    parsed = parse_filter(where)
    assert parsed is not None
    meant = {place for place, metadata in enumerate(SHELF) if holds(parsed, metadata)}
    assert await passing(table, predicate(parsed)) == meant


@pytest.mark.parametrize("text", INJECTIONS)
@pytest.mark.asyncio(loop_scope="module")
async def test_v13_an_injected_value_is_a_value(table: Any, text: str) -> None:
    for where in ({"lang": text}, {"lang": {"eq": text}}, {"lang": {"in": [text]}}, {"and": [{"lang": text}]}):
        parsed = parse_filter(where)
        assert parsed is not None
        assert {SHELF[place]["lang"] for place in await passing(table, predicate(parsed))} == {text}


@pytest.mark.parametrize("operator", ["eq", "ne", "in", "lt", "gte", "exists"])
@pytest.mark.parametrize("key", ["", "a'b", 'a"b', "a=b", "a b", "1a", "ä", "a\nb", "x" * 65, "a) OR (1=1", "a\x00"])
def test_v14_a_key_outside_the_allow_list_is_refused_by_every_operator(key: str, operator: str) -> None:
    operand: Any = {"in": ["x"], "exists": True}.get(operator, "x")
    for where in ({key: "x"}, {key: {operator: operand}}, {"not": {"or": [{key: {operator: operand}}]}}):
        with pytest.raises(Invalid) as caught:
            parse_filter(where)
        assert caught.value.field == "where"


@pytest.mark.parametrize(
    "where",
    [
        {"and": []},
        {"or": [{}]},
        {"or": ["lang = 'en'"]},
        {"not": {}},
        {"lang": {}},
        {"lang": {"like": "%"}},
        {"lang": {"$eq": "en"}},
        {"lang": ["en"]},
        {"lang": {"in": "en"}},
        {"lang": {"in": []}},
        {"lang": {"in": [["en"]]}},
        {"lang": {"in": ["x"] * (LIMIT_CONDITIONS + 1)}},
        {"lang": {"exists": 1}},
        {"year": {"lt": True}},
        {"year": {"lt": None}},
        {"year": {"lt": float("nan")}},
        {"year": {"lt": 10**400}},
        {"day": {"gt": "ä"}},
        {"day": {"gt": 'a"b'}},
        {"lang": "x" * 2_001},
        {"or": [{"lang": str(number)} for number in range(40)], "and": [{"year": number} for number in range(40)]},
    ],
)
def test_v13_what_is_not_of_the_language_is_refused(where: Any) -> None:
    with pytest.raises(Invalid):
        parse_filter(where)


def test_v13_nesting_is_bounded() -> None:
    where: dict[str, Any] = {"lang": "en"}
    for _ in range(LIMIT_DEPTH):
        where = {"not": where}
    assert parse_filter(where)
    with pytest.raises(Invalid, match="nested"):
        parse_filter({"not": where})


def test_a_key_named_as_a_connective_keeps_its_equality() -> None:
    parsed = parse_filter({"and": "en"})
    assert parsed is not None
    assert holds(parsed, {"and": "en"})
    assert not holds(parsed, {"and": "de"})


def test_no_filter_is_no_filter() -> None:
    assert parse_filter(None) is parse_filter({}) is None


def test_what_no_filter_could_name_has_no_facet() -> None:
    assert facets({"a b": 1, "n": [1], "f": float("inf"), "ok": "x"}) == ('ok="x"',)
