"""Retrieval over BEIR-style folders: quality of each leg and way of fusing, latency, ingest rate, size.

    python benchmarks/retrieval.py [FOLDER] --cache /tmp/vectors [--sets med cisi:500] [--maxsim 20] [--mlflow URI]

FOLDER holds one folder a set; without it, `$PILOTHOUSE_DATASETS/retrieval`. Real chunks, vectors and LanceDB; a document
scores as its best chunk. The way of fusing is chosen on half of the queries of all sets together and reported on the
other half. Latencies are of one caller, the question's embedding left out; `own` is CPU time of the event loop that the
product adds to LanceDB's two queries run bare, measured in turns: a busy machine does not blur it.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytrec_eval

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.services.ingest.ports import Entry
from app.services.retrieval.embedder import MiniLmEmbedder, Vectors
from app.services.retrieval.legs import SELECTED, Legs
from app.services.retrieval.library import Library
from app.services.retrieval.look import Found
from app.services.retrieval.near import METRIC
from app.services.retrieval.place import Place
from app.services.retrieval.query import Query
from app.services.retrieval.rank import RERANKED
from app.services.retrieval.rerank import MaxSim
from app.services.retrieval.table import words
from benchmarks.beir import Cache, Set, read
from benchmarks.fusions import CANDIDATES, FUSIONS, LEGS, Ranking, Way

DRAWS = 2_000  # of the bootstrap
SETS = ("ops", "med", "cisi", "scifact", "xquad_en", "xquad_zh")


class Known:
    """The embedder's vectors of questions, without its time."""

    def __init__(self, embedder: MiniLmEmbedder, vectors: Mapping[str, Vectors]) -> None:
        self.id, self.dimensions, self.reads = embedder.id, embedder.dimensions, embedder.reads
        self._vectors = vectors

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self._vectors[text] for text in texts])


@dataclass
class Measured:
    """One set: what each query found, and what it cost."""

    data: Set
    chunks: int
    found: dict[str, Legs] = field(default_factory=dict)
    default: dict[str, Ranking] = field(default_factory=dict)
    document_of: dict[str, str] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)

    def half(self, dev: bool) -> list[str]:
        """Every second query is for choosing."""
        return [query for place, query in enumerate(sorted(self.found)) if (place % 2 == 0) is dev]

    def scores(self, ranked: Mapping[str, Ranking], measure: str) -> dict[str, float]:
        """The measure by query; documents by their best chunk."""
        run = {query: self._by_document(ranking) for query, ranking in ranked.items()}
        grades = {query: dict(self.data.grades[query]) for query in run}
        evaluated = pytrec_eval.RelevanceEvaluator(grades, {measure}).evaluate(run)
        return {query: evaluated.get(query, {}).get(measure, 0.0) for query in run}

    def way(self, way: Way | None, measure: str, *, dev: bool) -> list[float]:
        """The measure of each query of a half; None is what the product does."""
        ranked = {query: way(self.found[query]) if way else self.default[query] for query in self.half(dev)}
        return list(self.scores(ranked, measure).values())

    def _by_document(self, ranking: Ranking) -> dict[str, float]:
        best: dict[str, float] = {}
        for key, score in ranking:
            document = self.document_of[key]
            best[document] = max(score, best.get(document, -np.inf))
        return best


async def measure(data: Set, cache: Cache, embedder: MiniLmEmbedder) -> Measured:
    asked = dict(zip(data.queries, cache.vectors(list(data.queries.values())), strict=True))
    vectors = cache.vectors([text for document in data.documents for text in document.texts()])
    entries, first = [], 0
    for document in data.documents:
        last = first + len(document.chunks)
        entries.append(Entry(document.document_id, document.title, {}, document.chunks, "", vectors[first:last]))
        first = last
    known = Known(embedder, {data.queries[key]: vector for key, vector in asked.items()})
    with tempfile.TemporaryDirectory() as folder:
        library = await Library.open(Path(folder), known)
        began = time.perf_counter()
        await library.replace("bench", data.name, entries)
        measured = Measured(data, len(vectors))
        measured.figures["chunks/s"] = len(vectors) / (time.perf_counter() - began)
        measured.figures["KB a chunk"] = _size(Path(folder)) / len(vectors) / 1000
        table = (await library.shelf.snapshot(Place("bench", data.name))).table
        plain, whole = [], []
        for key, text in data.queries.items():
            _, took = await timed(bare(table, text, asked[key]))
            plain.append(took)
            found, took = await timed(library.look("bench", data.name, Query.checked(text)))
            whole.append(took)
            measured.found[key], measured.default[key] = found.legs, found.ranked.fused
            measured.document_of |= {chunk: found.legs.row(chunk)["document_id"] for chunk in found.legs.cosines}
        await library.close()
    (wall, cpu), (bare_wall, bare_cpu) = np.transpose(whole), np.transpose(plain)
    measured.figures |= {f"p{q} ms": float(np.percentile(wall, q)) for q in (50, 99)}
    measured.figures |= {"bare p50 ms": float(np.median(bare_wall)), "own ms": float(np.median(cpu - bare_cpu))}
    return measured


async def bare(table: Any, text: str, vector: Vectors) -> None:
    from lancedb.query import MatchQuery

    near = table.query().nearest_to(vector).distance_type(METRIC).select([*SELECTED, "_distance"]).limit(CANDIDATES)
    matching = table.query().nearest_to_text(MatchQuery(words(text), "words")).select([*SELECTED, "_score"])
    await asyncio.gather(near.to_arrow(), matching.limit(CANDIDATES).to_arrow())


async def timed(work: Awaitable[Found | None]) -> tuple[Any, tuple[float, float]]:
    """What came of it, and milliseconds: by the clock, and of this thread's CPU."""
    wall, cpu = time.perf_counter(), time.thread_time()
    found = await work
    return found, ((time.perf_counter() - wall) * 1000, (time.thread_time() - cpu) * 1000)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def quality(sets: Sequence[Measured], measure: str, *, dev: bool) -> pl.DataFrame:
    """A row for each leg and way, a column for each set, and the mean of the sets."""
    ways: dict[str, Way | None] = LEGS | FUSIONS | {"default": None}
    columns = {one.data.name: [float(np.mean(one.way(way, measure, dev=dev))) for way in ways.values()] for one in sets}
    frame = pl.DataFrame({"way": list(ways), **columns})
    return frame.with_columns(pl.mean_horizontal(*columns).alias("mean"))


def against_legs(sets: Sequence[Measured]) -> pl.DataFrame:
    """The default's paired difference to the better leg of each set, in points of nDCG@10, with a 95% bootstrap interval."""
    rows = []
    for one in sets:
        ours = np.array(one.way(None, "ndcg_cut_10", dev=False))
        legs = {name: np.array(one.way(leg, "ndcg_cut_10", dev=False)) for name, leg in LEGS.items()}
        better = max(legs, key=lambda name: legs[name].mean())
        gain = (ours - legs[better]) * 100
        draws = np.random.default_rng(7).choice(gain, (DRAWS, len(gain))).mean(axis=1)
        low, high = np.percentile(draws, (2.5, 97.5))
        rows.append((one.data.name, len(gain), better, gain.mean(), low, high))
    return pl.DataFrame(rows, schema=["set", "n", "better leg", "points", "low", "high"], orient="row")


async def late_interaction(sets: Sequence[Measured], embedder: MiniLmEmbedder, queries: int) -> pl.DataFrame:
    """nDCG@10 of the first queries of the reported half: as fused, re-ranked by MaxSim, and by the mean of both."""
    rows, reader = [], MaxSim(embedder)
    for one in sets:
        chosen, spent = one.half(dev=False)[:queries], []
        ranked: dict[str, dict[str, Ranking]] = {"fused": {}, "maxsim": {}, "mean": {}}
        for key in chosen:
            legs = one.found[key]
            fused = list(one.default[key])
            began = time.perf_counter()
            second = await reader.scores(one.data.queries[key], [legs.text(chunk) for chunk, _ in fused[:RERANKED]])
            spent.append((time.perf_counter() - began) * 1000)
            top = list(zip(fused[:RERANKED], second, strict=True))
            ranked["fused"][key] = fused
            ranked["maxsim"][key] = [(chunk, 1 + score) for (chunk, _), score in top] + fused[RERANKED:]
            ranked["mean"][key] = [(chunk, 1 + (one_ + score) / 2) for (chunk, one_), score in top] + fused[RERANKED:]
        means = [float(np.mean(list(one.scores(each, "ndcg_cut_10").values()))) for each in ranked.values()]
        rows.append((one.data.name, len(chosen), *means, float(np.median(spent))))
    return pl.DataFrame(rows, schema=["set", "n", *ranked, "p50 ms"], orient="row")


def log(uri: str, sets: Sequence[Measured], frames: Mapping[str, pl.DataFrame], settings: Mapping[str, object]) -> None:
    import mlflow

    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("retrieval")
    with mlflow.start_run():
        mlflow.log_params(dict(settings))
        for one in sets:
            mlflow.log_metrics({_named(f"{one.data.name} {name}"): value for name, value in one.figures.items()})
        for title, frame in frames.items():
            mlflow.log_text(frame.write_csv(), f"{title}.csv")
        for row in frames["ndcg_cut_10"].iter_rows(named=True):
            mlflow.log_metric(_named(f"ndcg {row['way']}"), row["mean"])


def _named(text: str) -> str:
    return text.replace(" ", "_").replace("/", "_per_")


async def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folder", type=Path, nargs="?", default=os.environ.get("PILOTHOUSE_DATASETS"))
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--sets", nargs="+", default=SETS, help="name, or name:documents")
    arguments.add_argument("--documents", type=int, default=1_000, help="of a set at most, judged ones first")
    arguments.add_argument("--queries", type=int, default=150, help="of a set at most")
    arguments.add_argument("--maxsim", type=int, default=0, help="queries of a set to re-rank; 0: none")
    arguments.add_argument("--mlflow", default="", help="tracking URI to log to")
    given = arguments.parse_args()
    folder = given.folder and (given.folder / "retrieval" if (given.folder / "retrieval").is_dir() else given.folder)
    if folder is None or not folder.is_dir():
        sys.exit("no folder of sets: name one, or set PILOTHOUSE_DATASETS")
    embedder = await MiniLmEmbedder.open()
    cache, sets = Cache(given.cache, embedder), []
    for wanted in given.sets:
        name, _, documents = wanted.partition(":")
        data = await read(folder / name, documents=int(documents or given.documents), queries=given.queries)
        sets.append(await measure(data, cache, embedder))
        print(
            f"{name}: {len(data.documents)} documents, {sets[-1].chunks} chunks, {len(data.queries)} queries",
            flush=True,
        )
    frames = {
        "chosen on (ndcg_cut_10)": quality(sets, "ndcg_cut_10", dev=True),
        "ndcg_cut_10": quality(sets, "ndcg_cut_10", dev=False),
        "recall_100": quality(sets, "recall_100", dev=False),
        "default against the better leg": against_legs(sets),
        "cost": pl.DataFrame([{"set": one.data.name, **one.figures} for one in sets]),
    }
    if given.maxsim:
        frames["late interaction"] = await late_interaction(sets, embedder, given.maxsim)
    with pl.Config(
        tbl_rows=-1,
        tbl_cols=-1,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_width_chars=140,
        float_precision=4,
    ):
        for title, frame in frames.items():
            print(title, frame, sep="\n")
    if given.mlflow:
        log(
            given.mlflow,
            sets,
            frames,
            {"sets": ",".join(given.sets), "documents": given.documents, "queries": given.queries},
        )
    embedder.close()


if __name__ == "__main__":
    asyncio.run(main())
