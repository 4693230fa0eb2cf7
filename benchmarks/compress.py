"""What a short prompt keeps of what was retrieved: whole passages as they fit, or sentences of all of them.

    python benchmarks/compress.py FOLDER --cache /tmp/vectors [--documents 120] [--queries 100]

FOLDER holds `retrieval/xquad_en` and `qa/xquad_en.jsonl`. Of the six nearest chunks of each question, how often does the
gold answer stand in what fits into the budget? Tokens are the chunker's estimate; no model takes part.
"""

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.services.ingest.chunk import count_tokens
from app.services.retrieval.embedder import MiniLmEmbedder
from benchmarks.beir import Cache, read
from graphs.prompts import passage_tokens
from graphs.rag.compress import compress
from graphs.types import Passage

BUDGETS = (150, 300, 600, 1_200)
PASSAGES = 6


def cost(passage: Passage) -> int:
    return passage_tokens(passage, count_tokens)


def whole(passages: Sequence[Passage], budget: int) -> list[Passage]:
    """As the prompt takes them: in order, those that still fit."""
    kept = []
    for passage in passages:
        if cost(passage) <= budget:
            kept.append(passage)
            budget -= cost(passage)
    return kept


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--documents", type=int, default=120)
    arguments.add_argument("--queries", type=int, default=100)
    given = arguments.parse_args()
    data = await read(given.folder / "retrieval" / "xquad_en", documents=given.documents, queries=given.queries)
    rows = map(json.loads, (given.folder / "qa" / "xquad_en.jsonl").read_text().splitlines())
    answers = {row["_id"]: row["answers"] for row in rows}
    embedder = await MiniLmEmbedder.open()
    cache = Cache(given.cache, embedder)
    texts = [text for document in data.documents for text in document.texts()]
    scores = cache.vectors(list(data.queries.values())) @ cache.vectors(texts).T
    passages = [
        Passage(
            f"{document.document_id}-{chunk.start}",
            document.document_id,
            document.title,
            chunk.text,
            chunk.start,
            chunk.end,
            0.0,
            "bench",
        )
        for document in data.documents
        for chunk in document.chunks
    ]
    table = []
    for budget in BUDGETS:
        hits = {"retrieved": 0, "whole": 0, "sentences": 0}
        for (key, question), row in zip(data.queries.items(), scores, strict=True):
            best = [passages[place] for place in np.argsort(-row)[:PASSAGES]]
            kept = {
                "retrieved": best,
                "whole": whole(best, budget),
                "sentences": compress(best, question, budget_tokens=budget, cost=cost),
            }
            for name, found in kept.items():
                hits[name] += any(answer in passage.text for answer in answers[key] for passage in found)
        table.append(
            {"budget": budget, "n": len(data.queries)} | {name: hit / len(data.queries) for name, hit in hits.items()}
        )
    print(pl.DataFrame(table))
    embedder.close()


if __name__ == "__main__":
    asyncio.run(main())
