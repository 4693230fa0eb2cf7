"""The handbook's questions and its pages belong together: whoever edits a page sees here which quotes to mend."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
HANDBOOK = ROOT / "app" / "handbook"
DATASET = ROOT / "evals" / "datasets" / "handbook.jsonl"
CARD = DATASET.with_name("README.md")
KINDS = ("fact", "identifier", "procedure", "number", "paraphrase", "unanswerable")
FIELDS = {"id", "question", "answers", "document_id", "quotes", "also", "kind", "split"}


@pytest.fixture(scope="module")
def questions() -> list[dict[str, Any]]:
    return [json.loads(line) for line in DATASET.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8") for path in HANDBOOK.glob("*.md")}


def test_every_question_has_the_same_fields(questions: list[dict[str, Any]]) -> None:
    assert all(question.keys() == FIELDS for question in questions)
    assert {question["kind"] for question in questions} == set(KINDS)
    assert {question["split"] for question in questions} == {"dev", "test"}


def test_ids_are_unique(questions: list[dict[str, Any]]) -> None:
    assert [name for name, count in Counter(question["id"] for question in questions).items() if count > 1] == []


def test_no_question_is_asked_twice_within_or_across_the_splits(questions: list[dict[str, Any]]) -> None:
    plain = Counter(" ".join(question["question"].casefold().split()) for question in questions)
    assert [text for text, count in plain.items() if count > 1] == []


def test_every_quote_stands_verbatim_in_its_page(questions: list[dict[str, Any]], pages: dict[str, str]) -> None:
    lost = [
        (question["id"], quote)
        for question in questions
        for home in (question, *question["also"])
        for quote in home["quotes"]
        if quote not in pages.get(home["document_id"], "")
    ]
    assert lost == []


def test_a_page_that_says_the_same_is_another_page_and_only_of_what_has_an_answer(
    questions: list[dict[str, Any]],
) -> None:
    for question in questions:
        homes = [home["document_id"] for home in (question, *question["also"])]
        assert len(set(homes)) == len(homes), question["id"]
        assert question["quotes"] or not question["also"], question["id"]


def test_a_question_has_an_answer_with_a_quote_or_is_unanswerable(questions: list[dict[str, Any]]) -> None:
    for question in questions:
        held = (bool(question["answers"]), question["document_id"] is not None, bool(question["quotes"]))
        assert len(set(held)) == 1, question["id"]
        assert held[0] is (question["kind"] != "unanswerable"), question["id"]


def test_an_identifier_stands_in_the_quotes_of_its_question(questions: list[dict[str, Any]]) -> None:
    for question in questions:
        if question["kind"] == "identifier":
            parts = [part.strip() for part in question["answers"][0].split(",")]
            held = " ".join(question["quotes"])
            assert all(part in held for part in parts) or question["answers"][0].split()[-1] in held, question["id"]


def test_every_page_is_asked_about(questions: list[dict[str, Any]], pages: dict[str, str]) -> None:
    assert pages.keys() - {question["document_id"] for question in questions} == set()


def test_there_are_as_many_questions_as_the_card_promises(questions: list[dict[str, Any]]) -> None:
    kinds = Counter(question["kind"] for question in questions)
    assert len(questions) - kinds["unanswerable"] >= 220
    assert kinds["unanswerable"] >= 40
    assert kinds["identifier"] >= 40


def test_both_splits_hold_the_same_mix_of_kinds(questions: list[dict[str, Any]]) -> None:
    for kind in KINDS:
        of_kind = [question["split"] for question in questions if question["kind"] == kind]
        assert 0.35 <= of_kind.count("dev") / len(of_kind) <= 0.45, kind


def test_the_card_names_the_hash_of_the_file() -> None:
    assert hashlib.sha256(DATASET.read_bytes()).hexdigest() in CARD.read_text(encoding="utf-8")


def test_every_page_begins_with_its_title(pages: dict[str, str]) -> None:
    assert [name for name, text in pages.items() if not text.startswith("# ")] == []
