"""The dialogues: the file, its card and the handbook's pages belong together."""

import hashlib
import json
from collections import Counter
from typing import Any

import pytest

from app.workbench import PAGES
from evals.cases import FOLDER
from evals.metrics.retrieval import holds

DATA = (FOLDER / "followups.jsonl").read_bytes()


@pytest.fixture(scope="module")
def dialogues() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DATA.decode().splitlines()]


def test_no_dialogue_comes_twice_within_or_across_the_splits(dialogues: list[dict[str, Any]]) -> None:
    ids = Counter(row["id"] for row in dialogues)
    texts = Counter(" ".join([*row["history"], row["question"]]).casefold() for row in dialogues)
    assert [value for count in (ids, texts) for value, times in count.items() if times > 1] == []


def test_something_was_asked_before_every_question(dialogues: list[dict[str, Any]]) -> None:
    assert all(row["history"] and row["question"].strip() for row in dialogues)


def test_every_quote_stands_on_its_page(dialogues: list[dict[str, Any]]) -> None:
    homes = [home for row in dialogues for home in (row, *row["also"])]
    pages = {home["document_id"]: (PAGES / f"{home['document_id']}.md").read_text(encoding="utf-8") for home in homes}
    assert [quote for home in homes for quote in home["quotes"] if not holds(pages[home["document_id"]], [quote])] == []


def test_the_card_names_the_hash_and_the_counts_of_the_file(dialogues: list[dict[str, Any]]) -> None:
    card = (FOLDER / "followups.md").read_text(encoding="utf-8")
    assert hashlib.sha256(DATA).hexdigest() in card
    rows = [line.split("|") for line in card.splitlines() if line.startswith("| `")]
    told = {(row[1].strip(" `"), split): int(row[place]) for row in rows for split, place in (("dev", 3), ("test", 4))}
    assert told == Counter((row["kind"], row["split"]) for row in dialogues)
