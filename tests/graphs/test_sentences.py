import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphs.sentences import split


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in split(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four", ["One.", "Two!", "Three?", "Four"]),
        (
            "Dr. Smith met Mr. J. R. Jones, e.g. in Oslo. They left.",
            ["Dr. Smith met Mr. J. R. Jones, e.g. in Oslo.", "They left."],
        ),
        ("It is in the U.S. The other is not.", ["It is in the U.S.", "The other is not."]),
        ("The U.S. Army is large.", ["The U.S. Army is large."]),
        ("See No. 5 and v1.2.3. Set run.started to 3.5 MB.", ["See No. 5 and v1.2.3.", "Set run.started to 3.5 MB."]),
        ("Run `a. B c` now. Then stop.", ["Run `a. B c` now.", "Then stop."]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("你好。再见！", ["你好。", "再见！"]),
    ],
)
def test_prose_is_cut_where_a_reader_would(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_a_wrapped_paragraph_is_not_cut_at_its_line_ends() -> None:
    text = "The export is tried again after a while, and\nnothing is lost in between. The backlog\nis a number."
    assert sentences(text) == [
        "The export is tried again after a while, and\nnothing is lost in between.",
        "The backlog\nis a number.",
    ]


MARKDOWN = """# Title

Intro:

- first. More of it
  goes on
- second

1. third

| a | b |
|---|---|
| c. D | e |

```sh
make run. Now
```
"""


def test_list_items_rows_and_code_lines_stand_alone() -> None:
    items = ["first.", "More of it\n  goes on", "second", "third"]
    assert sentences(MARKDOWN) == ["# Title", "Intro:", *items, "| a | b |", "| c. D | e |", "make run. Now"]


def test_a_short_title_line_does_not_melt_into_the_text_below() -> None:
    assert sentences("Short title\nThis is the text.") == ["Short title", "This is the text."]


@given(st.text(alphabet=" \n.!?`#|-a1A。\t\"'", max_size=200))
def test_sentences_are_in_order_apart_and_never_blank(text: str) -> None:
    spans = split(text)
    assert all(start < end and text[start:end] == text[start:end].strip() for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))


@pytest.mark.parametrize("sign", [".", "?!", '."', "…", ". .", "。"])
def test_v08_dots_without_end_are_looked_at_once(sign: str) -> None:
    began = time.process_time()
    split("One " + sign * (30_000 // len(sign)) + "x")
    assert time.process_time() - began < 5  # from each dot anew it took 17 s
