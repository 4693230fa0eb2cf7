"""The committed datasets, by name."""

import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal

from graphs.errors import Missing

FOLDER: Final = Path(__file__).with_name("datasets")
Split = Literal["dev", "test"]


@dataclass(frozen=True, slots=True)
class Case:
    """A question; no answers means that the documents hold none."""

    id: str
    question: str
    answers: tuple[str, ...]
    document_id: str | None
    quotes: tuple[str, ...]
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
    cases = [
        Case(**row | {"answers": tuple(row["answers"]), "quotes": tuple(row["quotes"])})
        for row in rows
        if split is None or row["split"] == split
    ]
    if limit is not None and limit < len(cases):
        cases = [cases[place * len(cases) // limit] for place in range(limit)]
    return Dataset(name, sha256(data).hexdigest(), tuple(cases))
