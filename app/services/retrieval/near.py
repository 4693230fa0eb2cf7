"""The nearest vectors of a table: all rows are read while they are few, an index answers for many.

The index is IVF_RQ: a bit for each dimension, rows in partitions of what lies together. A search looks into some of
them and compares the best exactly. How far it has to look is found out when the index is made, by asking it and the
rows themselves; where it cannot reach RECALL there is none. What was found is written at the column, with the rows' own
version, so that a search "as of" a version reads both together.

A filter makes an index lie: what passes it may be in partitions that nobody looked into. Where few rows pass they are
all read; where many do, the search looks into as many more partitions.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.services.retrieval.commit import committed, guarded

log = logging.getLogger(__name__)

# Reading all of 20,000 rows took 38 ms of CPU and an index 26, of 60,000 97 and 36, of 200,000 377 and 64; by the clock
# they meet near 28,000. Under a filter that 15,000 rows or more pass an index found all of the ten nearest, under those
# that 1,000 to 10,000 pass 0.88 to 0.98 of them (benchmarks/crossover.py).
FROM_ROWS: Final = 20_000
# Rows are unit vectors, so every metric orders them alike, but not the partitions: by the dot product what lies close
# together seems near to every question. Of 60 questions to 500,000 rows 16, 32 and 64 partitions found .967 .983 1.0 of
# the ten nearest, by cosine .982 .998 .998.
METRIC: Final = "cosine"
RECALL: Final = 0.99  # of the true ten nearest, which leaves something for questions unlike the tried ones
TRIED: Final = 64  # rows that the index is tried with
NEAREST: Final = 10
ASKED: Final = 100  # neighbours, as a search asks for; more are compared exactly the more are asked for
# A question lies between passages, and its nearest are harder to find than a row's: of 500,000 rows, means of three
# found .934 .984 1.0 1.0 with 8 to 64 probes, 60 real questions .947 .970 .983 1.0, and rows moved at random by half or
# all of their length all with 8.
MIXED: Final = 3
SPARE: Final = 2  # times as many partitions are looked into as the tried ones needed
PART_ROWS: Final = 4_096  # smaller ones took several times as long to make, for searches no quicker
PROBES: Final = (8, 16, 32, 64, 128, 256)
REFINES: Final = (3, 10)  # times as many as asked for are compared exactly
GROWN: Final = 1.5  # times the rows it was trained on: then it is trained anew
MAX_PARTS: Final = 32  # each tidying adds one, and a search looks into all of them
_KEY: Final = b"near"
_INDEX: Final = "vector_idx"
_COUNTS: Final = 256


@dataclass(frozen=True, slots=True)
class Near:
    """What is known of a table's vector index; `probes` is 0 where all rows are to be read.

    `rows` were there when it was trained, by `metric`. `_passing` holds how many rows pass a filter, of this one
    version.
    """

    probes: int = 0
    refine: int = 0
    rows: int = 0
    metric: str = METRIC
    _passing: dict[str, int] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, layout: Any) -> "Near":
        """As written in the schema of a table's version."""
        noted = (layout.field("vector").metadata or {}).get(_KEY)
        return cls(**{"metric": "dot"} | json.loads(noted)) if noted else cls()

    def noted(self) -> dict[str, Any]:
        """As it is written there."""
        return {"probes": self.probes, "refine": self.refine, "rows": self.rows, "metric": self.metric}

    async def query(self, table: Any, vector: NDArray[np.float32], line: str | None) -> Any:
        """The query for the rows nearest to `vector` that pass the predicate `line`."""
        near = table.query().nearest_to(vector).distance_type(self.metric)
        if line is not None:
            near = near.where(line)
        if not self.probes:
            return near.bypass_vector_index()
        probes = self.probes if line is None else await self._probes(table, line)
        return near.nprobes(probes).refine_factor(self.refine) if probes else near.bypass_vector_index()

    async def _probes(self, table: Any, line: str) -> int:
        """0 where so few rows pass that they are all read."""
        passing = self._passing.get(line)
        if passing is None:
            if len(self._passing) >= _COUNTS:
                self._passing.clear()
            passing = self._passing[line] = await table.count_rows(line)
        return 0 if passing < FROM_ROWS else -(-self.probes * self.rows // passing)


async def ensure_near(table: Any) -> None:
    """Make or renew the index of a table that is large enough, and try it. Raises IndexFailed."""
    rows, near = await guarded(table.count_rows()), Near.of(await guarded(table.schema()))
    if rows < FROM_ROWS or not await _is_due(table, near, rows):
        return
    from lancedb.index import IvfRq

    config = IvfRq(distance_type=METRIC, target_partition_size=PART_ROWS)
    await committed(partial(table.create_index, "vector", config=config, replace=True, name=_INDEX))
    found = await _tried(table, rows)
    if not found.probes:
        log.warning("no vector index finds enough of this table; all rows are read", extra={"rows": rows})
        await committed(partial(table.drop_index, _INDEX))
    noted = {_KEY.decode(): json.dumps(found.noted())}
    await committed(partial(table.update_field_metadata, {"path": "vector", "metadata": noted}))


async def _is_due(table: Any, near: Near, rows: int) -> bool:
    if rows > near.rows * GROWN or near.metric != METRIC:
        return True
    if not near.probes:
        return False  # it was tried, and found too little
    stats = await guarded(table.index_stats(_INDEX))
    return stats is None or stats.num_indices > MAX_PARTS


async def _tried(table: Any, rows: int) -> Near:
    """The least that reaches RECALL, with SPARE times its probes; 0 probes where nothing does."""
    questions = _between(await _sample(table, rows))

    async def found_by(near: Near) -> list[set[str]]:
        return [await _ids(await near.query(table, each, None)) for each in questions]

    true = await found_by(Near())
    for near in (Near(probes, refine, rows) for refine in REFINES for probes in PROBES):
        found = await found_by(near)
        if np.mean([len(ours & theirs) / len(theirs) for ours, theirs in zip(found, true, strict=True)]) >= RECALL:
            return replace(near, probes=SPARE * near.probes)
    return Near(rows=rows)


async def _ids(query: Any) -> set[str]:
    found = await guarded(query.select(["chunk_id", "_distance"]).limit(ASKED).to_arrow())
    return set(found["chunk_id"].to_pylist()[:NEAREST])


async def _sample(table: Any, rows: int) -> NDArray[np.float32]:
    """Shape (TRIED, dimensions); from all over the table."""
    offsets = np.linspace(0, rows - 1, TRIED).astype(int).tolist()
    column = (await guarded(table.take_offsets(offsets).select(["vector"]).to_arrow()))["vector"].combine_chunks()
    matrix: NDArray[np.float32] = column.flatten().to_numpy().reshape(len(column), -1)
    return matrix


def _between(vectors: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
    """Unit vectors, each amid MIXED of the given ones, the same in every run."""
    draws = np.random.default_rng(7)
    mixed = np.sum([vectors[draws.permutation(len(vectors))] for _ in range(MIXED)], axis=0)
    return list(mixed / np.linalg.norm(mixed, axis=1, keepdims=True))
