import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.ingest.document import normalise

ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=()))


@given(ANY_TEXT)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once


@given(ANY_TEXT)
def test_normalised_text_can_be_stored_anywhere(text: str) -> None:
    found = normalise(text)
    found.encode("utf-8")
    assert "\x00" not in found
    assert "\r" not in found
    assert unicodedata.is_normalized("NFC", found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("e\u0301", "\u00e9"),
        ("a\x00b\ud800c", "a\ufffdb\ufffdc"),
        ("\ud83d\ude00", "\U0001f600"),
        ("ig\u200bnore\u202e \U000e0041all", "ignore all"),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ],
    ids=["line ends", "composed", "nul and surrogate", "surrogate pair", "invisible", "joiners stay"],
)
def test_normalised_forms(text: str, expected: str) -> None:
    assert normalise(text) == expected
