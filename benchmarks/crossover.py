"""From how many rows on a vector index answers sooner than reading all of them: of a table, and of what passes a filter.

    python benchmarks/crossover.py [--rows 20000 60000 200000] [--searches 20]

Rows are synthetic: vectors of MiniLM's length around a thousand centres, a facet for each share of the rows that a filter
lets pass. Tables, index and predicates are the product's own. Both ways are asked the same questions in turns, for what
a search asks; medians, and CPU time of the process, which a busy machine does not blur. Recall is of the ten nearest.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import lancedb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from app.services.retrieval.legs import SELECTED
from app.services.retrieval.near import ASKED, METRIC, NEAREST, Near, ensure_near
from app.services.retrieval.table import facet_lines, schema

DIMENSIONS = 384
CENTRES = 1_000
SPREAD = 0.7  # of a row's length, away from its centre: as far as chunks of one text lie apart
SHARES = (0.5, 0.25, 0.1, 0.05)
ADDED = 20_000  # rows at once

Vectors = NDArray[np.float32]


def vectors(count: int, centres: Vectors, draw: np.random.Generator) -> Vectors:
    """Unit rows around the centres."""
    steps = draw.standard_normal((count, DIMENSIONS), np.float32)
    steps *= SPREAD / np.linalg.norm(steps, axis=1, keepdims=True)
    moved = centres[draw.integers(len(centres), size=count)] + steps
    found: Vectors = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    return found


def rows(first: int, made: Vectors, draw: np.random.Generator) -> Any:
    layout = schema("synthetic", DIMENSIONS)
    count, lots = len(made), draw.random(len(made))
    facets = [facet_lines([f"share={share}" for share in SHARES if lot < share]) for lot in lots]
    texts = {name: [f"{name} {first + place} " * 40 for place in range(count)] for name in ("text", "words")}
    told: dict[str, Any] = {"chunk_id": [str(first + place) for place in range(count)], "facets": facets} | texts
    told |= {"document_id": told["chunk_id"], "metadata": ["{}"] * count, "trust": ["tenant"] * count}
    told |= {"allow_groups": [["*"]] * count, "vector": pa.FixedSizeListArray.from_arrays(made.reshape(-1), DIMENSIONS)}
    blank: dict[str, Any] = {field.name: [0 if pa.types.is_integer(field.type) else ""] * count for field in layout}
    return pa.table({name: (blank | told)[name] for name in layout.names}, schema=layout)


async def filled(place: Path, count: int, seed: int) -> tuple[Any, Vectors]:
    """A table with its index, and questions for it."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((CENTRES, DIMENSIONS), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    database = await lancedb.connect_async(str(place))
    table = await database.create_table(f"rows{count}", schema=schema("synthetic", DIMENSIONS))
    for first in range(0, count, ADDED):
        await table.add(rows(first, vectors(min(ADDED, count - first), centres, draw), draw))
    await ensure_near(table)
    return table, vectors(64, centres, draw)


async def asked(query: Any) -> tuple[list[str], float, float]:
    """The ids, milliseconds, and milliseconds of CPU."""
    began, spent = time.perf_counter(), time.process_time()
    found = await query.select([*SELECTED, "_distance"]).limit(ASKED).to_arrow()
    took = (time.perf_counter() - began) * 1e3, (time.process_time() - spent) * 1e3
    return found["chunk_id"].to_pylist()[:NEAREST], *took


async def compared(table: Any, near: Near, questions: Sequence[Vectors], share: float | None) -> str:
    """A line of the result: without a share of the rows all of them are looked at."""
    line = None if share is None else f"contains(facets, '\nshare={share}\n')"
    passing = await table.count_rows(line)
    probes = -(-near.probes * near.rows // passing)
    whole, by_index, recalls = [], [], []
    for question in questions:
        bare = await Near().query(table, question, line)
        quick = table.query().nearest_to(question).distance_type(METRIC).nprobes(probes).refine_factor(near.refine)
        if line is not None:
            quick = quick.where(line)
        true, *cost = await asked(bare)
        whole.append(cost)
        found, *cost = await asked(quick)
        by_index.append(cost)
        recalls.append(len(set(true) & set(found)) / NEAREST)
    (wall, cpu), (wall_index, cpu_index) = np.median(whole, axis=0), np.median(by_index, axis=0)
    return (
        f"{near.rows:>8} {passing:>8} {probes:>6} {wall:>9.1f} {wall_index:>9.1f} {cpu:>9.1f} {cpu_index:>9.1f}"
        f" {np.mean(recalls):>7.3f}"
    )


async def main(sizes: Sequence[int], searches: int) -> None:
    heads = ("rows", "passing", "probes", "whole ms", "index ms", "whole CPU", "index CPU", "recall")
    print(" ".join(f"{head:>{width}}" for head, width in zip(heads, (8, 8, 6, 9, 9, 9, 9, 7), strict=True)), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for count in sizes:
            table, questions = await filled(Path(folder), count, seed=7)
            near = Near.of(await table.schema())
            if not near.probes:
                print(f"{count:>8} no index finds enough", flush=True)
                continue
            await compared(table, near, list(questions[:3]), None)  # what is read first comes from the disk
            for share in (None, *SHARES):
                print(await compared(table, near, list(questions[:searches]), share), flush=True)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, nargs="+", default=[20_000, 60_000, 200_000])
    arguments.add_argument("--searches", type=int, default=20)
    given = arguments.parse_args()
    asyncio.run(main(given.rows, given.searches))
