"""What each leg of a search finds, and what fusing them gains: nDCG@10 by collection and way of fusing.

    python benchmarks/retrieval_legs.py /work/shared/data/retrieval --cache /tmp/legs [--bare]

Real chunks, real vectors, real LanceDB; a document scores as its best chunk. `--bare` leaves title and heading out of
the embedded text. Vectors are cached: without a cache 1,500 abstracts take minutes.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytrec_eval

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.services.ingest.chunk import chunk
from app.services.ingest.parse import parse
from app.services.ingest.ports import Entry
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.fuse import fuse
from app.services.retrieval.legs import Legs, search_legs
from app.services.retrieval.library import CANDIDATES, Library
from app.services.retrieval.query import LIMIT_QUERY_CHARS, checked_query

Ranking = Sequence[tuple[str, float]]


def ranks(scores: Mapping[str, float], limit: int = CANDIDATES) -> list[str]:
    return sorted(scores, key=lambda key: (-scores[key], key))[:limit]


def reciprocal(legs: Legs, dense_weight: float, k: int = 60) -> Ranking:
    """Weighted reciprocal rank fusion over the first CANDIDATES of each leg."""
    scores: dict[str, float] = {}
    for weight, order in ((dense_weight, ranks(legs.cosines)), (1 - dense_weight, ranks(legs.bm25))):
        for rank, key in enumerate(order, 1):
            scores[key] = scores.get(key, 0.0) + weight / (k + rank)
    return list(scores.items())


def spread(legs: Legs, dense_weight: float) -> Ranking:
    """Each leg stretched to [0, 1] over this call's candidates, then the weighted mean."""
    low, high = min(legs.cosines.values(), default=0.0), max(legs.cosines.values(), default=1.0)
    top = max(legs.bm25.values(), default=1.0)
    return [
        (key, dense_weight * (cosine - low) / ((high - low) or 1) + (1 - dense_weight) * legs.bm25.get(key, 0) / top)
        for key, cosine in legs.cosines.items()
    ]


WAYS: dict[str, Callable[[Legs], Ranking]] = {
    "vectors": lambda legs: list(legs.cosines.items()),
    "words": lambda legs: list(legs.bm25.items()),
    "rrf 0.5": lambda legs: reciprocal(legs, 0.5),
    "rrf 0.7": lambda legs: reciprocal(legs, 0.7),
    **{f"spread {w}": lambda legs, w=w: spread(legs, w) for w in (0.4, 0.5, 0.6, 0.7)},
    **{f"fuse {w}": lambda legs, w=w: fuse(legs.cosines, legs.bm25, dense_weight=w) for w in (0.5, 0.6, 0.7, 0.8)},
}


def lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def embed(embedder: MiniLmEmbedder, texts: Sequence[str], cache: Path) -> np.ndarray:
    if not cache.is_file():
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, embedder.embed_now(texts))
    return np.load(cache)


async def collect(data: Path, cache: Path, embedder: MiniLmEmbedder, *, bare: bool, documents: int) -> dict[str, Legs]:
    """The legs of every judged query."""
    judged = judgements(data)
    wanted = {document for grades in judged.values() for document in grades}
    corpus = [row for row in lines(data / "corpus.jsonl") if row["text"].strip()]
    corpus.sort(key=lambda row: row["_id"] not in wanted)
    parsed = [(row, chunk(await parse(row["text"], media_type="text/markdown"))) for row in corpus[:documents]]
    texts = [
        piece.text if bare else "\n".join(part for part in (row.get("title", ""), piece.heading, piece.text) if part)
        for row, pieces in parsed
        for piece in pieces
    ]
    vectors = embed(embedder, texts, cache / f"{data.name}-{len(texts)}{'-bare' if bare else ''}.npy")
    entries, first = [], 0
    for row, pieces in parsed:
        entries.append(Entry(row["_id"], row.get("title", ""), {}, pieces, "", vectors[first : first + len(pieces)]))
        first += len(pieces)
    queries = {row["_id"]: row["text"] for row in lines(data / "queries.jsonl") if row["_id"] in judged}
    asked = embed(embedder, list(queries.values()), cache / f"{data.name}-queries.npy")
    with tempfile.TemporaryDirectory() as folder:
        library = await Library.open(folder, embedder)
        await library.replace("bench", data.name, entries)
        table = (await library._snapshot("bench", data.name)).table
        print(f"{data.name}: {len(entries)} documents, {len(texts)} chunks, {len(queries)} queries", file=sys.stderr)
        found = {
            key: await search_legs(table, checked_query(query[:LIMIT_QUERY_CHARS]), vector, (), CANDIDATES)
            for (key, query), vector in zip(queries.items(), asked, strict=True)
        }
        await library.close()
    return found


def judgements(data: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for line in (data / "qrels.tsv").read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        found.setdefault(query, {})[document] = int(grade)
    return found


def by_document(legs: Legs, ranking: Ranking) -> dict[str, float]:
    best: dict[str, float] = {}
    for key, score in ranking:
        document = legs.rows[key]["document_id"]
        best[document] = max(score, best.get(document, -1.0))
    return best


def ndcg(data: Path, found: Mapping[str, Legs], way: Callable[[Legs], Ranking]) -> float:
    run = {query: by_document(legs, way(legs)) for query, legs in found.items()}
    scores = pytrec_eval.RelevanceEvaluator(judgements(data), {"ndcg_cut_10"}).evaluate(run)
    return float(np.mean([score["ndcg_cut_10"] for score in scores.values()]))


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--sets", nargs="+", default=["ops", "med", "cisi", "scifact"])
    arguments.add_argument("--documents", type=int, default=1_500, help="of a collection at most, judged ones first")
    arguments.add_argument("--bare", action="store_true")
    given = arguments.parse_args()
    if not given.data.is_dir():
        sys.exit(f"no folder {given.data}: it holds one folder a collection, in BEIR's form")
    embedder = await MiniLmEmbedder.open()
    table: dict[str, list[object]] = {"way": list(WAYS)}
    for name in given.sets:
        found = await collect(given.data / name, given.cache, embedder, bare=given.bare, documents=given.documents)
        table[name] = [round(ndcg(given.data / name, found, way), 4) for way in WAYS.values()]
    frame = pl.DataFrame(table)
    with pl.Config(tbl_rows=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(frame.with_columns(pl.mean_horizontal(*given.sets).round(4).alias("mean")))
    embedder.close()


if __name__ == "__main__":
    asyncio.run(main())
