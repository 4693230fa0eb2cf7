from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.services.ingest import kept
from app.services.ingest.chunk import CHUNKERS, TARGET_TOKENS, WHOLE_TOKENS, Chunking, chunk, count_tokens
from app.services.ingest.document import Builder, Place, normalise
from app.services.ingest.markdown import parse_markdown, parse_text
from app.services.ingest.table import put_rows
from app.services.retrieval.embedder import MiniLmEmbedder
from graphs.errors import Invalid

LINES = st.one_of(
    st.sampled_from(
        ["", "# One", "## Two", "Title", "===", "- item", "  - nested", "> quote", "```", "    code", "---"]
    ),
    st.sampled_from(["| a | b |", "|---|---|", "1. first", "<div>", "[x]: y", "A sentence. Another one! 是的。"]),
    st.text(alphabet=st.characters(exclude_categories=()), max_size=80),
    st.builds(lambda word, n: f"{word} " * n, st.sampled_from(["word", "字", "long-name_x"]), st.integers(1, 600)),
)
DOCUMENTS = st.lists(LINES, max_size=30).map("\n".join)


@given(DOCUMENTS)
def test_a_chunk_is_exactly_its_stretch_of_the_normalised_text(text: str) -> None:
    for parsed in (parse_markdown(text), parse_text(text)):
        assert parsed.text == normalise(text)
        end = 0
        for piece in chunk(parsed):
            assert parsed.text[piece.start : piece.end] == piece.text
            assert piece.start >= end
            assert piece.text.strip()
            end = piece.end


@given(DOCUMENTS)
def test_no_word_of_a_plain_text_is_lost(text: str) -> None:
    parsed = parse_text(text)
    assert "".join("".join(piece.text for piece in chunk(parsed)).split()) == "".join(parsed.text.split())


@given(DOCUMENTS)
@example("before\n\n" + "heading " * 400 + "\n===\nafter")
def test_no_chunk_outgrows_the_embedder_unless_it_is_kept_whole(text: str) -> None:
    assert all(count_tokens(piece.text) <= TARGET_TOKENS for piece in chunk(parse_text(text)))
    assert all(count_tokens(piece.text) <= WHOLE_TOKENS for piece in chunk(parse_markdown(text)))


@given(DOCUMENTS, st.sampled_from(sorted(CHUNKERS)))
def test_every_chunker_gives_exact_stretches_of_the_stored_text_in_order(text: str, by: str) -> None:
    for parsed in (parse_markdown(text), parse_text(text)):
        pieces = chunk(parsed, Chunking.checked(by))
        assert all(parsed.text[piece.start : piece.end] == piece.text and piece.text.strip() for piece in pieces)
        assert [piece.start for piece in pieces] == sorted({piece.start for piece in pieces})


@given(DOCUMENTS, st.sampled_from(["sentences", "tokens"]))
def test_windows_cover_all_of_any_text_and_stay_below_the_limit(text: str, by: str) -> None:
    parsed = parse_markdown(text)
    reached = 0
    for piece in chunk(parsed, Chunking.checked(by)):
        assert not parsed.text[reached : piece.start].strip()
        assert count_tokens(piece.text) <= TARGET_TOKENS
        reached = max(reached, piece.end)
    assert not parsed.text[reached:].strip()


@pytest.mark.parametrize("by", ["sentences", "tokens"])
def test_a_window_begins_with_the_end_of_the_one_before(by: str) -> None:
    first, second, *_ = chunk(
        parse_text("This is a sentence of some length about nothing. " * 60), Chunking.checked(by)
    )
    assert first.start < second.start < first.end < second.end


@pytest.mark.parametrize("by", sorted(CHUNKERS))
@pytest.mark.parametrize("text", ["a" * 1_000_000, "x\n" + " " * 1_000_000 + "\ny", "\u5b57" * 50_000, "a " * 50_000])
def test_v11_a_megabyte_of_one_character_is_cut_in_linear_time(text: str, by: str) -> None:
    assert all(count_tokens(piece.text) <= TARGET_TOKENS for piece in chunk(parse_text(text), Chunking.checked(by)))


def test_an_unknown_chunker_is_refused() -> None:
    with pytest.raises(Invalid, match="structure, sentences, tokens"):
        Chunking.checked("magic")


def test_the_later_parts_of_a_long_table_are_headed_by_its_columns_and_know_their_rows() -> None:
    builder = Builder("")
    builder.heading(1, "Costs")
    put_rows(builder, [["item", "cost"], *([f"rope {i}", str(i)] for i in range(200))], Place(sheet="Costs", row=3))
    first, second, *_ = pieces = chunk(builder.build("", "text/csv"))
    assert (first.heading, second.heading) == ("Costs", "Costs > item | cost")
    assert first.place == {"sheet": "Costs", "row": 3, "lastRow": 2 + len(first.text.split("\n"))}
    assert second.place["row"] == first.place["lastRow"] + 1  # type: ignore[operator]
    assert pieces[-1].place["lastRow"] == 203


def test_a_page_is_the_place_of_its_chunks() -> None:
    builder = Builder("")
    builder.heading(1, "page 7", shown=False)
    builder.block("Moored.", place=Place(page=7))
    for by in CHUNKERS:
        assert [piece.place for piece in chunk(builder.build("", "application/pdf"), Chunking.checked(by))] == [
            {"page": 7}
        ]


def test_chunks_follow_headings_and_name_their_path() -> None:
    text = "# Guide\n\nIntro.\n\n## Install\n\nFirst.\n\n### Linux\n\nSecond.\n\n## Use\n\nThird.\n"
    assert [(piece.heading, piece.text) for piece in chunk(parse_markdown(text))] == [
        ("", "Intro."),
        ("Install", "First."),
        ("Install > Linux", "Second."),
        ("Use", "Third."),
    ]


def test_a_table_and_a_fence_stay_in_one_piece() -> None:
    table = "| key | value |\n|---|---|\n" + "".join(f"| name{i} | {i} |\n" for i in range(40))
    fence = "```\n" + "run one command\n" * 60 + "```"
    pieces = [piece.text for piece in chunk(parse_markdown(f"Before. {'word ' * 150}\n\n{table}\n{fence}\n\nAfter."))]
    assert any(table.strip() in piece for piece in pieces)
    assert any(fence in piece for piece in pieces)


def test_long_paragraphs_break_between_sentences() -> None:
    pieces = chunk(parse_text("This is a sentence of some length about nothing. " * 60))
    assert len(pieces) > 1
    assert all(piece.text.startswith("This") and piece.text.endswith(".") for piece in pieces)


def test_front_matter_gives_the_title_and_is_not_searched() -> None:
    parsed = parse_markdown('---\ntitle: "Key rotation"\nowner: ops\n---\n\n# Other\n\nBody.\n')
    assert parsed.title == "Key rotation"
    assert [piece.text for piece in chunk(parsed)] == ["Body."]


def test_a_document_of_headings_alone_is_still_found() -> None:
    assert [piece.text for piece in chunk(parse_markdown("# Nothing but this"))] == ["# Nothing but this"]


@pytest.mark.parametrize(
    "text", ["Rotate the owner key with `PILOTHOUSE_OWNER_KEY`, then restart.", "鍵を回す。今すぐ。"]
)
def test_the_estimate_is_near_the_embedders_count(text: str, embedder: MiniLmEmbedder) -> None:
    assert count_tokens(text) == pytest.approx(embedder.count_tokens(text), rel=0.4)


@given(DOCUMENTS, st.sampled_from(sorted(CHUNKERS)), st.integers(20, 400))
def test_no_chunk_outgrows_the_size_that_a_collection_chose(text: str, by: str, size_tokens: int) -> None:
    parsed = parse_text(text)
    assert all(count_tokens(piece.text) <= size_tokens for piece in chunk(parsed, Chunking.checked(by, size_tokens)))


@pytest.mark.parametrize(
    "told", [Chunking(), Chunking("structure", 80), Chunking("sentences", 120, 0), Chunking("tokens", 64, 32)]
)
def test_a_way_to_cut_is_written_and_read_again(told: Chunking) -> None:
    assert Chunking.parsed(str(told)) == told


@pytest.mark.parametrize(
    ("by", "size_tokens", "overlap_tokens", "field"),
    [
        ("magic", None, None, "chunker"),
        ("tokens", 19, None, "size"),
        ("sentences", 2_001, None, "size"),
        ("structure", 100, 10, "overlap"),
        ("tokens", 100, 51, "overlap"),
        ("tokens", 100, -1, "overlap"),
    ],
)
def test_sizes_that_no_chunk_can_have_are_refused(
    by: str, size_tokens: int | None, overlap_tokens: int | None, field: str
) -> None:
    with pytest.raises(Invalid) as refused:
        Chunking.checked(by, size_tokens, overlap_tokens)
    assert refused.value.field == field


@given(DOCUMENTS)
def test_a_document_is_cut_alike_from_what_the_store_kept_of_it(text: str) -> None:
    parsed = parse_markdown(text)
    again = kept.read(parsed.title, parsed.media_type, parsed.text, kept.written(parsed), ())
    assert again.blocks == parsed.blocks
    assert chunk(again) == chunk(parsed)


def test_the_places_of_a_table_survive_being_kept() -> None:
    builder = Builder("")
    put_rows(builder, [["item", "cost"], *([f"rope {i}", str(i)] for i in range(200))], Place(sheet="Costs", row=3))
    parsed = builder.build("", "text/csv")
    assert kept.read("", "text/csv", parsed.text, kept.written(parsed), ()).blocks == parsed.blocks


@given(DOCUMENTS, st.sampled_from(sorted(CHUNKERS)))
def test_chunks_stand_in_for_the_structure_of_a_document_from_before_it_was_kept(text: str, by: str) -> None:
    parsed = parse_markdown(text)
    again = kept.read(parsed.title, parsed.media_type, parsed.text, "", chunk(parsed, Chunking.checked(by)))
    assert all(one.end <= other.start for one, other in pairwise(again.blocks))
    assert {block.heading for block in again.blocks} <= {block.heading for block in parsed.blocks} | {""}
