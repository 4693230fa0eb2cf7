"""The two looks at a table that make a search: the nearest vectors, and the best matching words."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.services.retrieval.embedder import Vectors
from app.services.retrieval.table import COLUMNS, facet_lines, words


@dataclass(frozen=True, slots=True)
class Legs:
    """Candidates by chunk id: the row and the cosine of each, the BM25 score of those that share a word."""

    rows: Mapping[str, Mapping[str, Any]]
    cosines: Mapping[str, float]
    bm25: Mapping[str, float]


async def search_legs(table: Any, question: str, vector: Vectors, filters: Sequence[str], limit: int) -> Legs:
    """Up to `limit` rows of each leg that have all of `filters`; both read `table` at the same time."""
    from lancedb.expr import col, lit
    from lancedb.query import MatchQuery

    near = table.query().nearest_to(vector).distance_type("dot").select([*COLUMNS, "_distance"]).limit(limit)
    matching = table.query().nearest_to_text(MatchQuery(words(question), "words"))
    matching = matching.select([*COLUMNS, "vector", "_score"]).limit(limit)
    for line in filters:
        equal = col("facets").contains(lit(facet_lines([line])))
        near, matching = near.where(equal), matching.where(equal)
    nearest, matched = await asyncio.gather(near.to_arrow(), matching.to_arrow())

    near_rows, matched_rows = nearest.to_pylist(), matched.drop(["vector"]).to_pylist()
    vectors = matched["vector"].combine_chunks().flatten().to_numpy().reshape(-1, len(vector))
    # The text leg's rows get their cosine too: leaving it at 0 would push down a passage that only just missed the cut.
    cosines = {row["chunk_id"]: cosine for row, cosine in zip(matched_rows, (vectors @ vector).tolist(), strict=True)}
    cosines |= {row["chunk_id"]: 1 - row["_distance"] for row in near_rows}
    return Legs(
        rows={row["chunk_id"]: row for row in (*matched_rows, *near_rows)},
        cosines=cosines,
        bm25={row["chunk_id"]: row["_score"] for row in matched_rows},
    )
