"""Personal data in answers, where a tenant wants none: out of every stream as out of the whole."""

from hypothesis import given, settings
from hypothesis import strategies as st

from app.answers import Answers
from app.config.answers import AnswersConfig
from app.services.guardrails.stream import PatternFilter

REDACTS = Answers(AnswersConfig(personal="redact")).guard("acme")
FLAGS = Answers(AnswersConfig(personal="flag")).guard("acme")
DATA = {
    "email": ("Write to ann.lee@mail.example.com.", "ann.lee@"),
    "phone": ("Call her office at 555-0134 ext. 1234, please.", "0134"),
    "phone, abroad": ("Reach us on +44 20 7946 0958 today.", "7946"),
    "us_ssn": ("Her number is 536-22-1234.", "22-1234"),
    "us_ssn, plain": ("The social security number is 536221234.", "536221234"),
    "ip_address": ("It came from 8.8.8.8.", "8.8.8.8"),
}
FRAGMENTS = [text for text, _ in DATA.values()] + ["call ", "555-0134", " x1", "2", "@", "a", "8.8.", " fax", "\n", "."]


def whole(text: str) -> str:
    return REDACTS.check(text)[0]


def cut(applied: PatternFilter, text: str, sizes: list[int]) -> str:
    out, at = "", 0
    for size in sizes:
        out += applied.feed(text[at : at + size])
        at += size
    return out + applied.feed(text[at:]) + applied.close()


def test_it_is_taken_out_wherever_it_is_cut() -> None:
    for text, inner in DATA.values():
        assert inner in text
        assert inner not in whole(text), text
        for place in range(len(text)):
            assert cut(REDACTS.stream_filter(), text, [place]) == whole(text)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join), st.lists(st.integers(0, 12), max_size=40))
def test_however_a_text_is_cut_the_output_is_the_same(text: str, sizes: list[int]) -> None:
    """What a pattern looks at before and behind a match is there when it is judged."""
    assert cut(REDACTS.stream_filter(), text, sizes) == whole(text)


def test_where_it_is_flagged_it_stays_and_its_kinds_are_told() -> None:
    text = " ".join(text for text, _ in DATA.values())
    clean, (patterns, flagged) = FLAGS.check(text)
    assert (clean, patterns.action, flagged.action) == (text, "allow", "flag")
    assert set(flagged.reasons) == {"email", "phone", "us_ssn", "ip_address"}
