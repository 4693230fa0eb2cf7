"""The pure parts of the Knowledge tab: who may do what, sizes, a document cut into parts, and a search's form."""

from datetime import UTC, datetime

import pytest

from app.console.figures import size
from app.console.knowledge_search import asked, typed
from app.console.knowledge_view import begin, drawn_document, kind
from app.console.passage import AROUND_CHARS, excerpt
from app.knowledge import home_of, may_write
from app.names import HANDBOOK, SHARED_TENANT
from app.records import Principal
from app.services.retrieval.filters import parse_filter
from app.services.store.records import DocumentRecord
from graphs.errors import Invalid

NOW = datetime(2026, 3, 3, 12, tzinfo=UTC)
WRITER = Principal("acme", "dora", frozenset({"documents"}), "k1")
READER = Principal("acme", "ann", frozenset({"chat"}), "k2")
OWNER = Principal("default", "owner", frozenset({"owner"}), "k0")


def record(**changes: object) -> DocumentRecord:
    values = {"title": "", "media_type": "text/plain", "size_bytes": 5, "metadata": {}} | changes
    return DocumentRecord("acme", "c", "a/b", sha256="", chunks=1, created_at=NOW, updated_at=NOW, **values)  # type: ignore[arg-type]


def test_nobody_writes_the_handbook_and_readers_write_nothing() -> None:
    assert may_write(WRITER, "plans")
    assert may_write(OWNER, "plans")
    assert not may_write(READER, "plans")
    assert not may_write(OWNER, HANDBOOK)
    assert (home_of(READER, HANDBOOK), home_of(READER, "plans")) == (SHARED_TENANT, "acme")


@pytest.mark.parametrize(
    ("size_bytes", "shown"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1 kB"), (14_240, "14.2 kB"), (3_100_000, "3.10 MB"), (2 * 10**9, "2 GB")],
)
def test_a_size_has_a_unit_and_three_figures(size_bytes: int, shown: str) -> None:
    assert size(size_bytes) == shown


def test_a_media_type_nobody_named_is_shown_as_it_is() -> None:
    assert (kind("application/pdf"), kind("x/y")) == ("PDF", "x/y")


def test_a_long_document_is_read_part_by_part_to_its_end() -> None:
    text = "\n".join(f"line {number}" for number in range(30_000))
    seen, at = 0, 0
    for _ in range(20):
        part = excerpt(text, at, at)
        assert part.hidden_before <= seen  # nothing between two parts is left out
        seen = len(text) - part.hidden_after
        if not part.hidden_after:
            break
        at = seen + AROUND_CHARS
    assert seen == len(text)


@pytest.mark.parametrize(
    ("written", "place"), [("2", 2), ("99", 3), ("", 0), ("-1", 0), ("9" * 5_000, 0), ("٣", 0), ("1e1", 0)]
)
def test_a_part_begins_within_the_text_whatever_a_browser_sends(written: str, place: int) -> None:
    assert begin(written, "abc") == place


def test_an_attack_in_a_document_stays_text() -> None:
    attack = "<img src=x onerror=window.stolen=1>"
    drawn = drawn_document(record(title=attack, media_type=attack, metadata={attack: attack}), attack, lost=attack)
    assert "<img" not in drawn
    assert drawn.count("&lt;img") >= 6


def test_the_marked_characters_are_those_between_the_offsets() -> None:
    drawn = drawn_document(record(), "one two three", place=(4, 7))
    assert "<mark>two</mark>" in drawn


FORM = {"query": "wind", "mode": "hybrid", "k": "6", "rerank": "none", "diversity": "0"}


@pytest.mark.parametrize(
    ("text", "values", "meant"),
    [
        ("2022", (2020, 2021), 2022),
        ("2022", ("2020",), "2022"),
        ("1.5", (1,), 1.5),
        ("true", (True, False), True),
        ("true", ("true",), "true"),
        ("null", (None,), None),
        ("many", (1, 2), "many"),
        ("2022", (), "2022"),
    ],
)
def test_a_value_of_the_filter_has_the_type_that_the_documents_have(
    text: str, values: tuple[object, ...], meant: object
) -> None:
    found = typed(text, values)
    assert (found, type(found)) == (meant, type(meant))


def test_the_form_becomes_a_typed_tree_and_never_a_string() -> None:
    form = FORM | {
        "field0": "year",
        "operator0": "gte",
        "value0": "2021",
        "field1": "ship",
        "operator1": "exists",
        "value1": "ignored",
        "operator2": "eq",
        "value2": "a condition without a field",
    }
    query, mode = asked(form, {"year": (2020,), "ship": ("Aurora",)})
    assert mode == "hybrid"
    assert query.only == parse_filter({"and": [{"year": {"gte": 2021}}, {"ship": {"exists": True}}]})


@pytest.mark.parametrize(
    "forged",
    [
        {"k": "1e9"},
        {"k": "nan"},
        {"k": "inf"},
        {"k": "six"},
        {"diversity": "2"},
        {"query": " "},
        {"field0": "a b", "operator0": "eq"},
        {"field0": "year", "operator0": "DROP"},
    ],
)
def test_what_no_form_of_ours_sends_is_refused(forged: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        asked(FORM | forged, {})
