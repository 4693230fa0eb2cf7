"""Each row of the hardening lists has a test that carries its id in its name, or a line of DECISIONS.md that says why
not: `- L05: ...`. The rows are in `hardening_rows.txt`, an id and its subject a line; a group is listed whole."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [line.split(maxsplit=1) for line in Path(__file__).with_name("hardening_rows.txt").read_text().splitlines()]
NAMED = re.compile(r"^\s*(?:async )?def test_((?:[a-z]\d\d_)+)", re.MULTILINE)
EXCUSED = re.compile(r"^- ([A-Z]\d\d): \S", re.MULTILINE)


def ids_of_tests() -> set[str]:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    return {row.upper() for text in texts for ids in NAMED.findall(text) for row in ids.rstrip("_").split("_")}


def ids_excused() -> set[str]:
    return set(EXCUSED.findall((ROOT / "DECISIONS.md").read_text(encoding="utf-8")))


def test_every_row_has_a_test_or_a_reason() -> None:
    covered = ids_of_tests() | ids_excused()
    assert [row for row, subject in ROWS if row not in covered] == []


def test_no_test_and_no_reason_names_a_row_that_is_not_in_its_group() -> None:
    rows = {row for row, subject in ROWS}
    groups = {row[0] for row in rows}
    assert sorted(row for row in ids_of_tests() | ids_excused() if row[0] in groups and row not in rows) == []


def test_names_with_several_rows_count_for_each() -> None:
    assert NAMED.findall("async def test_k02_k03_a_job(tmp_path):\n    def test_a_thing_d03_():") == ["k02_k03_"]
