"""A million chunks over a skewed set of tenants: what is found, how fast, in how much memory, beside plain LanceDB.

    python benchmarks/tenants.py build --home /tmp/million --cache /tmp/vectors [--chunks 1000000]
    python benchmarks/tenants.py ask --home /tmp/million --cache /tmp/vectors [--queries 50]

One tenant holds half of the chunks, ten hold 3% each, the rest is with two hundred small ones. No set of such a size is
at hand: texts are windows of 60 words, sliding over the texts of the sets in `$PILOTHOUSE_DATASETS/retrieval`, and a
window's vector is that of the chunk it starts in, moved at random by 0.2 to 0.7 of its length. So vectors are real ones
and their copies; read recall as that. Questions are the sets' own.

`build` takes everything in through the library, as ingest does once texts are embedded, then has it looked after.
`ask` measures each tenant in a process of its own, the product and LanceDB's hybrid query with its RRF in turns on the
same table. Recall is of the vector leg against reading all rows; `own` is CPU time of the event loop that the product
adds to LanceDB's two queries run bare. `ask-one` is what `ask` starts.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).parents[1]))

from app.services.retrieval.embedder import MiniLmEmbedder, Vectors
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.near import METRIC
from app.services.retrieval.place import Place
from app.services.retrieval.query import Query
from app.services.retrieval.table import words
from benchmarks.beir import Cache, read, sets_folder
from benchmarks.retrieval import SETS, Known, bare, timed
from graphs.types import Trust

COLLECTION = "windows"
WINDOW, STRIDE = 60, 3  # words
OF_DOCUMENT = 20  # chunks
COMMIT = 500  # documents
TOP = 10
FILTER = "contains(facets, '\ndecade=3\n')"  # a tenth of the rows


@dataclass(frozen=True)
class Window:
    text: str
    start: int
    end: int
    heading: str = ""
    place: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", {})


@dataclass(frozen=True)
class Windows:
    """A document: neighbouring windows."""

    document_id: str
    chunks: Sequence[Window]
    vectors: Vectors
    title: str = ""
    state: str = ""
    allow_groups: Sequence[str] = ()
    trust: Trust = "tenant"

    @property
    def metadata(self) -> dict[str, Any]:
        return {"decade": int(self.document_id[-1])}


def tenants(chunks: int) -> dict[str, int]:
    """Chunks by tenant."""
    small = (chunks // 2 - 10 * (chunks * 3 // 100)) // 200
    return (
        {"large": chunks // 2}
        | {f"middle{n}": chunks * 3 // 100 for n in range(10)}
        | {f"small{n}": small for n in range(200)}
    )


async def bases(cache: Cache) -> tuple[list[list[str]], Vectors, dict[str, str]]:
    """The words from each chunk of the sets on, its vector, and the sets' questions."""
    texts, embedded, asked = [], [], {}
    for name in SETS:
        data = await read(sets_folder() / name, documents=1_000, queries=20)
        asked |= {f"{name} {key}": text for key, text in data.queries.items()}
        for document in data.documents:
            tail = " ".join(chunk.text for chunk in document.chunks).split()
            for place, text in enumerate(document.texts()):
                first = len(tail) * place // len(document.chunks)
                texts.append(tail[first:] + tail[:first])
                embedded.append(text)
    return texts, cache.vectors(embedded), asked


def documents(count: int, texts: Sequence[list[str]], vectors: Vectors, seed: int) -> Iterator[Windows]:
    """`count` chunks, OF_DOCUMENT in each document but the last."""
    draw = np.random.default_rng(seed)
    for first in range(0, count, OF_DOCUMENT):
        base, slid = int(draw.integers(len(texts))), int(draw.integers(1_000))
        sizes = range(min(OF_DOCUMENT, count - first))
        source = texts[base]
        chunks = []
        for place in sizes:
            start = (slid + place * STRIDE) % max(len(source), 1)
            text = " ".join((source[start:] + source[:start])[:WINDOW])
            chunks.append(Window(text, place * 400, place * 400 + len(text)))
        moves = draw.standard_normal((len(chunks), vectors.shape[1])).astype(np.float32)
        moves *= (draw.uniform(0.2, 0.7, len(chunks)) / np.linalg.norm(moves, axis=1))[:, None].astype(np.float32)
        moved = vectors[base] + moves
        yield Windows(f"d{first // OF_DOCUMENT}", chunks, moved / np.linalg.norm(moved, axis=1, keepdims=True))


async def build(given: argparse.Namespace) -> None:
    embedder = await MiniLmEmbedder.open()
    texts, vectors, _ = await bases(Cache(given.cache, embedder))
    library = await Library.open(given.home, embedder)
    spent = dict[str, float]()
    for seed, (tenant, count) in enumerate(tenants(given.chunks).items()):
        held: list[Windows] = []
        for document in documents(count, texts, vectors, seed):
            held.append(document)
            if len(held) == COMMIT:
                spent[tenant] = spent.get(tenant, 0.0) + await _put(library, tenant, held)
                held = []
        if held:
            spent[tenant] = spent.get(tenant, 0.0) + await _put(library, tenant, held)
        if not tenant.startswith("small") or tenant.endswith("0"):
            print(f"{tenant}: {count} chunks, {count / spent[tenant]:,.0f} a second", flush=True)
    began, used = time.perf_counter(), time.process_time()
    await Maintenance(library, given.home).round()
    print(f"looked after: {time.perf_counter() - began:.0f} s, {time.process_time() - used:.0f} s of CPU")
    size = sum(path.stat().st_size for path in given.home.rglob("*") if path.is_file())
    total = sum(tenants(given.chunks).values())
    print(f"{total:,} chunks, {total / sum(spent.values()):,.0f} a second, {size / total:,.0f} bytes a chunk")
    await library.close()
    embedder.close()


async def _put(library: Library, tenant: str, held: Sequence[Windows]) -> float:
    began = time.perf_counter()
    await library.replace(tenant, COLLECTION, held)
    return time.perf_counter() - began


async def ask_one(given: argparse.Namespace) -> None:
    """One tenant; prints its figures as JSON."""
    embedder = await MiniLmEmbedder.open()
    _, _, asked = await bases(cache := Cache(given.cache, embedder))
    chosen = sorted(asked)[:: max(1, len(asked) // given.queries)][: given.queries]
    texts = [asked[key] for key in chosen]
    vectors = cache.vectors(texts)
    library = await Library.open(given.home, Known(embedder, dict(zip(texts, vectors, strict=True))))
    snapshot = await library.shelf.snapshot(Place(given.tenant, COLLECTION))
    before, ours, theirs, own, recalls = _memory(), [], [], [], []
    for text in (texts[0], *texts):  # the first one opens files
        _, (took, cpu) = await timed(library.look(given.tenant, COLLECTION, Query.checked(text)))
        ours.append(took)
        own.append(cpu)
    grown = _memory() - before
    for place, (text, vector) in enumerate(zip((texts[0], *texts), (vectors[0], *vectors), strict=True)):
        if not given.plain:
            break
        _, (_, spent) = await timed(bare(snapshot.table, text, vector))
        own[place] -= spent
        _, (took, _) = await timed(_plain(snapshot.table, text, vector))
        theirs.append(took)
    for vector in vectors:
        near = await snapshot.near.query(snapshot.table, vector, None)
        recalls.append(len(await _ids(near, 100) & await _ids(_exact(snapshot.table, vector), TOP)) / TOP)
    few = []
    for vector in vectors:
        near = await snapshot.near.query(snapshot.table, vector, FILTER)
        true = await _ids(_exact(snapshot.table, vector).where(FILTER), TOP)
        few += [len(await _ids(near, 100) & true) / len(true)] if true else []
    figures = {
        "probes": snapshot.near.probes,
        "recall@10": float(np.mean(recalls)),
        "filtered": float(np.mean(few)) if few else None,
    }
    figures |= {"p50 ms": float(np.median(ours[1:])), "p99 ms": float(np.percentile(ours[1:], 99)), "MB": grown}
    if theirs:
        figures |= {"plain p50 ms": float(np.median(theirs[1:])), "own ms": float(np.median(own[1:]))}
    print(json.dumps(figures))
    await library.close()
    embedder.close()


def _exact(table: Any, vector: Vectors) -> Any:
    return table.query().nearest_to(vector).distance_type(METRIC).bypass_vector_index()


async def _ids(query: Any, limit: int) -> set[str]:
    found = await query.select(["chunk_id", "_distance"]).limit(limit).to_arrow()
    return set(found["chunk_id"].to_pylist()[:TOP])


async def _plain(table: Any, text: str, vector: Vectors) -> None:
    from lancedb.query import MatchQuery
    from lancedb.rerankers import RRFReranker

    query = table.query().nearest_to(vector).distance_type(METRIC).nearest_to_text(MatchQuery(words(text), "words"))
    await query.rerank(RRFReranker()).limit(100).to_arrow()


def ask(given: argparse.Namespace) -> None:
    sizes = tenants(given.chunks)
    rows = []
    for tenant in ["large", *(f"middle{n}" for n in range(10)), *(f"small{n}" for n in range(0, 200, 20))]:
        command = [
            sys.executable,
            __file__,
            "ask-one",
            "--tenant",
            tenant,
            "--home",
            given.home,
            "--cache",
            given.cache,
        ]
        told = subprocess.run([*command, "--queries", str(given.queries)], capture_output=True, text=True, check=True)
        rows.append({"tenant": tenant, "chunks": sizes[tenant], **json.loads(told.stdout.splitlines()[-1])})
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True,
                   tbl_width_chars=160, float_precision=3):  # fmt: skip
        print(pl.DataFrame(rows))


def _memory() -> float:
    """Resident memory of this process at its highest, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=("build", "ask", "ask-one"))
    arguments.add_argument("--home", type=Path, required=True)
    arguments.add_argument("--cache", type=Path, required=True)
    arguments.add_argument("--chunks", type=int, default=1_000_000)
    arguments.add_argument("--queries", type=int, default=50)
    arguments.add_argument("--tenant", default="large")
    arguments.add_argument("--plain", action=argparse.BooleanOptionalAction, default=True)
    given = arguments.parse_args()
    if given.what == "ask":
        ask(given)
    else:
        asyncio.run({"build": build, "ask-one": ask_one}[given.what](given))


if __name__ == "__main__":
    main()
