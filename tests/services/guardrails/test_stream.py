import time

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.services.guardrails.stream import PatternFilter
from tests.services.guardrails.leaks import LEAKS, PATTERNS, pieces, whole

FRAGMENTS = [text for text, _ in LEAKS.values()] + [
    "![ok](https://img.example.com/a.png)", "![x][ref]", "<b>", "<your key>", "vec![1, 2]", "a<b and c>d", "hello. ",
    "12 ", "!", "[", "(", "<", '"', ">", "-----", "eyJ", "-----BEGIN PRIVATE KEY-----", "A", "é", "\n", " ",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=8).map("".join)
SIZES = st.lists(st.integers(0, 30), max_size=60)


@settings(max_examples=400, deadline=None)
@given(TEXTS, SIZES)
@example("x" * 5_000 + "<img " + "y" * 2_000 + ">", [1] * 60)
def test_however_a_text_is_cut_the_output_is_the_same(text: str, sizes: list[int]) -> None:
    assert pieces(text, sizes) == whole(text)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(LEAKS)), st.text(max_size=20), st.text(max_size=20), SIZES)
def test_a_seeded_leak_never_comes_out(name: str, before: str, after: str, sizes: list[int]) -> None:
    text, secret = LEAKS[name]
    assert secret not in pieces(f"{before} {text} {after}", sizes)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map(" ".join))
def test_a_cleaned_answer_stays_as_it_is(text: str) -> None:
    clean = whole(text)
    assert whole(clean) == clean


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(0, 5))
def test_whatever_a_pattern_can_match_is_seen_by_its_opening(text: str, cut: int) -> None:
    """Text without an opening is let out unread."""
    for text_ in (text, text[: len(text) - cut]):
        for pattern in PATTERNS:
            found = [match.start() for match in pattern.whole.finditer(text_)]
            found += [match.start() for match in pattern.begun.finditer(text_)]
            assert all(pattern.opening.match(text_, start) for start in found), pattern.name


def test_ordinary_text_is_let_out_to_the_last_word() -> None:
    applied = PatternFilter(PATTERNS)
    text = "Nothing in this sentence begins a pattern, so it is let out at once: "
    held = len(text) - len(applied.feed(text))
    assert held <= 1


def test_a_key_that_never_ends_holds_back_what_a_key_can_be_and_no_more() -> None:
    applied = PatternFilter(PATTERNS)
    assert applied.feed("-----BEGIN PRIVATE KEY-----" + "A" * 8_192) == "‹private key removed›"
    assert applied.feed(" and on it goes. ") == " and on it goes. "


def seconds_to_feed(text: str) -> float:
    applied, started = PatternFilter(PATTERNS), time.process_time()
    for character in text:
        applied.feed(character)
    return time.process_time() - started


def test_v08_what_follows_a_beginning_does_not_make_each_piece_dear() -> None:
    """Repeats that need not be there were tried in every way at each piece: thousands of times the price of a word."""
    following = " then nothing of it at all\n"
    plain = seconds_to_feed("plain words of no pattern at all here, and here too\n" * len(LEAKS))
    assert seconds_to_feed("".join(text + following for text, _ in LEAKS.values())) < 20 * plain


def test_reasons_name_each_pattern_once() -> None:
    applied = PatternFilter(PATTERNS)
    applied.feed("4111111111111111 and 5500000000000004 and AKIAIOSFODNN7EXAMPLE ")
    assert applied.reasons == ("card_number", "aws_key_id")
