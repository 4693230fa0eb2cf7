import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.ingest.chunk import TARGET_TOKENS, WHOLE_TOKENS, chunk, count_tokens
from app.services.ingest.document import normalise
from app.services.ingest.markdown import parse_markdown, parse_text
from app.services.retrieval.embedder import MiniLmEmbedder

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
def test_no_chunk_outgrows_the_embedder_unless_it_is_kept_whole(text: str) -> None:
    assert all(count_tokens(piece.text) <= TARGET_TOKENS for piece in chunk(parse_text(text)))
    assert all(count_tokens(piece.text) <= WHOLE_TOKENS for piece in chunk(parse_markdown(text)))


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
