"""The committed datasets, by name."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal

from graphs.errors import Missing

FOLDER: Final = Path(__file__).with_name("datasets")
Split = Literal["dev", "test"]


@dataclass(frozen=True, slots=True)
class Case:
    """A question; `wants_answer` is False where a refusal is right: the documents hold none, or nothing was asked.

    `gold` has the sentences that hold the answer, by page: the page that the question was written on first, then pages
    that say the same. Any of them is right. A question may want an answer without naming one: then only whether it got
    one is scored.
    """

    id: str
    question: str
    answers: tuple[str, ...]
    gold: Mapping[str, tuple[str, ...]]
    wants_answer: bool
    kind: str
    split: str


@dataclass(frozen=True, slots=True)
class Dataset:
    name: str
    sha256: str
    cases: tuple[Case, ...]


def load(name: str, split: str | None = None, limit: int | None = None) -> Dataset:
    """The cases of a split in the file's order; `limit` takes an evenly spread sample. Raises Missing."""
    path = FOLDER / f"{name}.jsonl"
    if not path.is_file():
        raise Missing(f"there is no dataset {name}")
    data = path.read_bytes()
    rows = [json.loads(line) for line in data.decode().splitlines() if line]
    cases = [_case(row) for row in rows if split is None or row["split"] == split]
    if limit is not None and limit < len(cases):
        cases = [cases[place * len(cases) // limit] for place in range(limit)]
    return Dataset(name, sha256(data).hexdigest(), tuple(cases))


def _case(row: dict[str, Any]) -> Case:
    answers = tuple(row.get("answers", ()))
    homes = [row, *row["also"]] if answers else []
    gold = {home["document_id"]: tuple(home["quotes"]) for home in homes}
    wanted = row["wanted"] == "answer" if "wanted" in row else bool(answers)
    return Case(row["id"], row["question"], answers, gold, wanted, row["kind"], row["split"])
