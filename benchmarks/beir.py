"""Retrieval sets in BEIR's form (`corpus.jsonl`, `queries.jsonl`, `qrels.tsv`) as the index takes them.

Documents go through the product's own parser and chunker. Vectors are kept by the text's hash, so that only texts
never seen before are embedded.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from app.services.ingest.chunk import Chunk, chunk
from app.services.ingest.parse import parse
from app.services.retrieval.embedder import MiniLmEmbedder, Vectors
from app.services.retrieval.query import LIMIT_QUERY_CHARS, checked_query

SAVED_EVERY = 256  # texts; an interrupted run loses no more


@dataclass(frozen=True)
class Document:
    document_id: str
    title: str
    chunks: Sequence[Chunk]

    def texts(self) -> list[str]:
        """What is embedded of it, as ingest does it."""
        return ["\n".join(part for part in (self.title, c.heading, c.text) if part) for c in self.chunks]


@dataclass(frozen=True)
class Set:
    """`queries` and `grades` hold judged queries only; every judged document is among the documents."""

    name: str
    documents: Sequence[Document]
    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, int]]


async def read(folder: Path, *, documents: int, queries: int) -> Set:
    """At most so many of each, documents that a judgement names first: fewer distractors flatter every leg alike."""
    judged_queries = _grades(folder / "qrels.tsv")
    grades = {key: judged_queries[key] for key in sorted(judged_queries, key=_shuffled)[:queries]}
    judged = {document for found in grades.values() for document in found}
    rows = [row for row in _lines(folder / "corpus.jsonl") if row["text"].strip()]
    rows.sort(key=lambda row: row["_id"] not in judged)
    taken = [
        Document(row["_id"], row.get("title", ""), chunk(await parse(row["text"], media_type="text/markdown")))
        for row in rows[:documents]
    ]
    asked = {
        row["_id"]: checked_query(row["text"][:LIMIT_QUERY_CHARS])
        for row in _lines(folder / "queries.jsonl")
        if row["_id"] in grades
    }
    return Set(folder.name, taken, asked, grades)


class Cache:
    """Vectors by the SHA-256 of their text, in one file for each embedder."""

    def __init__(self, folder: Path, embedder: MiniLmEmbedder) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{embedder.id}.npz"
        self._embedder = embedder
        self._known: dict[str, Vectors] = {}
        if self._path.is_file():
            held = np.load(self._path)
            self._known = dict(zip(held["keys"].tolist(), held["vectors"], strict=True))

    def vectors(self, texts: Sequence[str]) -> Vectors:
        """Shape (len(texts), dimensions)."""
        keys = [hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts]
        absent = [(key, text) for key, text in zip(keys, texts, strict=True) if key not in self._known]
        for first in range(0, len(absent), SAVED_EVERY):
            group = absent[first : first + SAVED_EVERY]
            made = self._embedder.embed_now([text for _, text in group])
            self._known |= {key: row for (key, _), row in zip(group, made, strict=True)}
            self._save()
        return np.stack([self._known[key] for key in keys])

    def _save(self) -> None:
        part = self._path.with_suffix(".part.npz")
        np.savez(part, keys=np.array(list(self._known)), vectors=np.stack(list(self._known.values())))
        part.replace(self._path)


def sets_folder() -> Path:
    """Of `$PILOTHOUSE_DATASETS`; ends the program where there is none."""
    folder = os.environ.get("PILOTHOUSE_DATASETS")
    if folder is None or not (Path(folder) / "retrieval").is_dir():
        sys.exit("no folder of sets: set PILOTHOUSE_DATASETS")
    return Path(folder) / "retrieval"


def _shuffled(key: str) -> str:
    """An order that no file has, the same in every run."""
    return hashlib.sha256(key.encode()).hexdigest()


def _grades(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in path.read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        found.setdefault(query, {})[document] = int(grade)
    return found


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
