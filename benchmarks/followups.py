"""What makes a follow-up findable: the handbook searched by what the user typed, and by what was made of it.

    python benchmarks/followups.py [--split test] [--k 6]

Of evals/datasets/followups.jsonl, how often does a passage that holds the gold quote stand among the first k? Each way
is compared with the plain question on the same dialogues: the mean difference, with a 95% bootstrap interval over them.
The rule in graphs/rag/followup.py was chosen on the dev split; only the test split is reported.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.services.ingest.ingest import Ingest, Source
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.retrieval.query import Query
from app.services.store.store import Store
from app.workbench import PAGES
from evals.compare import difference
from evals.metrics.retrieval import relevant
from graphs.rag.followup import standalone

Asked = tuple[str, Sequence[str]]
"""The question to search and its variants."""

DATASET = Path(__file__).parents[1] / "evals" / "datasets" / "followups.jsonl"
KINDS = ("ellipsis", "anaphora", "terse", "switch")
WAYS: Mapping[str, Callable[[str, Sequence[str]], Asked]] = {
    "as typed": lambda question, _: (question, ()),
    "the one before in front, always": lambda question, asked: (f"{asked[-1]} {question}", ()),
    "by the rule": lambda question, asked: (standalone(question, asked), ()),
    "as typed, the rule's beside it": lambda question, asked: (question, (standalone(question, asked),)),
}


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--split", choices=("dev", "test"), default="test")
    arguments.add_argument("--k", type=int, default=6)
    given = arguments.parse_args()
    rows = [json.loads(line) for line in DATASET.read_text().splitlines()]
    dialogues = [row for row in rows if row["split"] == given.split]
    embedder = await MiniLmEmbedder.open()
    with tempfile.TemporaryDirectory() as folder:
        library, store = await handbook(Path(folder), embedder)
        found = {
            f"{name} ({fusion})": [await hit(library, row, way, given.k, fusion) for row in dialogues]
            for name, way in WAYS.items()
            for fusion in (("best", "rrf") if "beside" in name else ("best",))
        }
        await library.close()
        await store.close()
    embedder.close()
    plain = next(iter(found.values()))
    kinds = [row["kind"] for row in dialogues]
    print(f"recall@{given.k}, {given.split} split, n = {len(dialogues)}")
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=160, fmt_str_lengths=60):
        print(pl.DataFrame([row for name, hits in found.items() for row in table(name, kinds, hits, plain)]))


async def handbook(folder: Path, embedder: MiniLmEmbedder) -> tuple[Library, Store]:
    """The packaged pages, searchable."""
    library = await Library.open(folder / "lance", embedder)
    store = await Store.open(f"sqlite+aiosqlite:///{folder / 'pilothouse.db'}", lambda: datetime.now(UTC))
    pages = [Source(path.stem, path.read_bytes(), filename=path.name) for path in sorted(PAGES.glob("*.md"))]
    for outcome in await Ingest(library, store.documents).add_batch("bench", "pages", pages):
        if outcome.error is not None:
            raise outcome.error
    return library, store


async def hit(
    library: Library, row: Mapping[str, Any], way: Callable[[str, Sequence[str]], Asked], k: int, fusion: Any
) -> float:
    """1 if the fact is among the first k, else 0."""
    text, variants = way(row["question"], row["history"])
    found = await library.look("bench", "pages", Query.checked(text, k, variants=variants, fusion=fusion))
    gold = {home["document_id"]: home["quotes"] for home in (row, *row["also"])}
    wanted = relevant(found.passages, gold)
    return float(any(passage.chunk_id in wanted for passage in found.passages))


def table(name: str, kinds: Sequence[str], hits: Sequence[float], plain: Sequence[float]) -> list[dict[str, Any]]:
    """A row for all follow-ups, and one for the changes of subject, which nothing should harm."""
    told = []
    for part, wanted in (("follow-ups", KINDS[:3]), ("changes of subject", KINDS[3:])):
        places = [place for place, kind in enumerate(kinds) if kind in wanted]
        ours, theirs = [hits[place] for place in places], [plain[place] for place in places]
        gained = difference(ours, theirs)
        told.append(
            {
                "searched": name,
                "of": part,
                "n": len(places),
                "recall": round(sum(ours) / len(ours), 3),
                "gain": "" if gained is None else str(gained),
            }
        )
    return told


if __name__ == "__main__":
    asyncio.run(main())
