from hypothesis import given
from hypothesis import strategies as st

from app.placeholders import Placeholders, Restoring

KEPT = Placeholders("a-run")
MAIL = KEPT.placeholder("email", "ann@example.org")
CARD = KEPT.placeholder("card_number", "4111111111111111")
TEXTS = st.lists(
    st.sampled_from([MAIL, CARD, "[", "]", "[EMAIL", "[EMAIL_1_", "[EMAIL_1_ABCDE]", MAIL[:-1], "![a](b)", "[1]", "é "])
    | st.text(max_size=4),
    max_size=10,
).map("".join)


@given(TEXTS, st.lists(st.integers(0, 30), max_size=40))
def test_however_an_answer_is_cut_its_originals_come_back(text: str, sizes: list[int]) -> None:
    restoring, out, at = Restoring(KEPT), "", 0
    for size in sizes:
        out += restoring.feed(text[at : at + size])
        at += size
    assert out + restoring.feed(text[at:]) + restoring.close() == KEPT.restored(text)


def test_text_without_a_bracket_is_not_held_back() -> None:
    assert Restoring(KEPT).feed("nothing to wait for") == "nothing to wait for"
    assert Restoring(KEPT).feed("[1] or [x](y) too") == "[1] or [x](y) too"


def test_one_original_has_one_placeholder_and_another_run_another_one() -> None:
    assert KEPT.placeholder("email", "ann@example.org") == MAIL
    assert Placeholders("another").placeholder("email", "ann@example.org") != MAIL
    assert Placeholders("another").restored(MAIL) == MAIL


def test_what_comes_back_from_a_tool_is_hidden_again() -> None:
    assert KEPT.hidden("sent to ann@example.org") == f"sent to {MAIL}"
    nested = {"to": [MAIL], "n": 3, "cc": ("x", MAIL)}
    assert KEPT.restored(nested) == {"to": ["ann@example.org"], "n": 3, "cc": ("x", "ann@example.org")}


def test_what_an_earlier_leg_kept_is_known_again() -> None:
    later = Placeholders("a-run")
    later.recall(KEPT.originals)
    assert later.restored(MAIL) == "ann@example.org"
    assert later.placeholder("email", "ann@example.org") == MAIL
    assert later.placeholder("email", "bob@example.org").startswith("[EMAIL_2_")
