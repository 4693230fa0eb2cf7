"""The estimate of tokens is computed by counting bytes; here it is computed again by looking at each word."""

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from app.services.gateway.tokens import estimate_tokens

WORDS = re.compile(r" ?[A-Za-z]+")


def by_words(text: str) -> int:
    words = WORDS.findall(text)
    beyond = "".join(char for char in text if not char.isascii())
    signs = len(text) - len(beyond) - sum(map(len, words))
    return sum(math.ceil(len(word) / 4) for word in words) + signs + math.ceil(len(beyond.encode()) / 2)


@given(st.text("ab  zZ.,\n\t\xe9漢🚢1-", max_size=60) | st.text())
def test_counting_bytes_gives_what_looking_at_each_word_gives(text: str) -> None:
    assert estimate_tokens(text) == by_words(text)


def test_a_lone_surrogate_counts_as_something() -> None:
    assert estimate_tokens("\ud800") == 1
