"""The messages that are no questions: the file and its card belong together."""

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from evals.cases import FOLDER, Dataset, load

CARD = FOLDER / "README.md"


@pytest.fixture(scope="module")
def messages() -> Dataset:
    return load("messages")


def test_no_message_comes_twice_within_or_across_the_splits(messages: Dataset) -> None:
    ids = Counter(case.id for case in messages.cases)
    texts = Counter(" ".join(case.question.casefold().split()) for case in messages.cases)
    assert [value for count in (ids, texts) for value, times in count.items() if times > 1] == []


def test_a_keyword_alone_wants_an_answer_and_none_names_one(messages: Dataset) -> None:
    assert {case.kind for case in messages.cases if case.wants_answer} == {"keyword"}
    assert {case.kind for case in messages.cases if not case.wants_answer} == {"smalltalk", "task", "gibberish"}
    assert not any(case.answers or case.gold for case in messages.cases)


def test_the_card_names_the_hash_and_the_counts_of_the_file(messages: Dataset) -> None:
    card = Path(CARD).read_text(encoding="utf-8")
    assert hashlib.sha256((FOLDER / "messages.jsonl").read_bytes()).hexdigest() in card
    rows = [line.split("|") for line in card.partition("## messages.jsonl")[2].splitlines() if line.startswith("| `")]
    told = {(row[1].strip(" `"), split): int(row[place]) for row in rows for split, place in (("dev", 4), ("test", 5))}
    assert told == Counter((case.kind, case.split) for case in messages.cases)
