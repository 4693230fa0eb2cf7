"""The index of large collections: it finds what reading everything finds, or it is not used."""

import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lancedb.index import IvfRq

from app.services.retrieval import near
from app.services.retrieval.embedder import Vectors
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.near import METRIC, Near, ensure_near
from app.services.retrieval.place import Place
from app.services.retrieval.query import Query
from app.services.retrieval.rebuild import Rebuild
from tests.services.retrieval.entries import Doc, Piece

NOTES = Place("acme", "notes")
ROWS, DIMENSIONS, CENTRES = 3_000, 128, 40
RARE = 7  # the centre that few rows stand at


class Points:
    """An embedder for texts that are the seed of a point beside one of the centres: `centre.number`."""

    id, dimensions = "points", DIMENSIONS

    def __init__(self) -> None:
        self.centres = np.random.default_rng(1).standard_normal((CENTRES, DIMENSIONS))

    def point(self, centre: int, number: int) -> Vectors:
        step = np.random.default_rng((centre, number)).standard_normal(DIMENSIONS) / 2
        vector = (self.centres[centre] + step).astype(np.float32)
        return vector / np.linalg.norm(vector)

    async def embed(self, texts: Sequence[str]) -> Vectors:
        return np.stack([self.point(*map(int, text.split("."))) for text in texts])


@pytest.fixture
async def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Library]:
    monkeypatch.setattr(near, "FROM_ROWS", 1_000)
    monkeypatch.setattr(near, "ASKED", 30)
    monkeypatch.setattr(near, "PART_ROWS", 64)
    made = await Library.open(tmp_path / "lance", Points())
    yield made
    await made.close()


async def fill(library: Library, document_id: str, numbers: Sequence[int], **metadata: Any) -> None:
    """Chunks from one centre after another; `centre` in the metadata puts all beside one."""
    texts = [f"{metadata.get('centre', number % CENTRES)}.{number}" for number in numbers]
    vectors = await library.embedder.embed(texts)
    await library.replace("acme", "notes", [Doc(document_id, "", tuple(map(Piece, texts)), vectors, metadata)])


async def noted(library: Library) -> Near:
    return (await library.shelf.snapshot(NOTES)).near


async def recall(library: Library, where: dict[str, Any] | None = None, as_of: str | None = None) -> float:
    """Of the true ten nearest, over forty questions that are no rows."""
    table = (await library.shelf.snapshot(NOTES, as_of)).table
    rows = await table.query().select(["chunk_id", "vector", "metadata"]).to_list()
    passing = [row for row in rows if where is None or '"rare"' in row["metadata"]]
    matrix, ids = np.array([row["vector"] for row in passing]), np.array([row["chunk_id"] for row in passing])
    questions = [f"{centre}.{9_000_000 + centre}" for centre in range(CENTRES)]
    shares = []
    for text, vector in zip(questions, await library.embedder.embed(questions), strict=True):
        query = Query.checked(text, 10, where)
        found = await library.look("acme", "notes", query, as_of)
        ours = sorted(found.legs.cosines, key=found.legs.cosines.__getitem__, reverse=True)[:10]
        true = ids[np.argsort(-(matrix @ vector))[:10]]
        shares.append(len(set(true.tolist()) & set(ours)) / 10)
    return float(np.mean(shares))


async def test_a_large_collection_is_searched_by_an_index_that_finds_what_reading_all_rows_finds(library: Library):
    await fill(library, "d", range(ROWS))
    before = await library.version("acme", "notes")
    assert not (await noted(library)).probes
    await Maintenance(library, None).optimise(NOTES)
    assert (await noted(library)).probes
    stats = await (await library.shelf.snapshot(NOTES)).table.index_stats("vector_idx")
    assert stats.num_indexed_rows == ROWS
    assert await recall(library) >= 0.98
    assert await recall(library, as_of=before) == 1.0


async def test_few_rows_that_pass_a_filter_are_all_found_wherever_they_lie(library: Library):
    """An index that looks into the partitions beside a question finds none of them."""
    await fill(library, "d", range(ROWS))
    await fill(library, "rare", range(ROWS, ROWS + 20), centre=RARE, kind="rare")
    await Maintenance(library, None).optimise(NOTES)
    assert (await noted(library)).probes
    assert await recall(library, {"kind": "rare"}) == 1.0


async def test_a_filter_that_many_rows_pass_makes_a_search_look_into_more_partitions(library: Library):
    await fill(library, "d", range(ROWS))
    await fill(library, "half", range(ROWS, ROWS + 1_500), kind="rare")
    await Maintenance(library, None).optimise(NOTES)
    snapshot = await library.shelf.snapshot(NOTES)
    assert await snapshot.near._probes(snapshot.table, "document_id = 'half'") == snapshot.near.probes * 3
    assert await recall(library, {"kind": "rare"}) >= 0.98


async def test_an_index_that_finds_too_little_is_not_used(library: Library, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(near, "PROBES", (1,))
    monkeypatch.setattr(near, "RECALL", 1.01)
    await fill(library, "d", range(ROWS))
    await Maintenance(library, None).optimise(NOTES)
    assert await noted(library) == Near(rows=ROWS)
    assert await recall(library) == 1.0
    table = await library.shelf.open(NOTES, "")
    version = await table.version()
    await ensure_near(table)
    assert await table.version() == version, "it was tried once, and is not until the table has grown"


async def test_rows_that_come_later_are_found_and_growth_trains_the_index_anew(library: Library):
    await fill(library, "d", range(ROWS))
    upkeep = Maintenance(library, None)
    await upkeep.optimise(NOTES)
    await fill(library, "later", range(ROWS, ROWS + 500))
    assert await recall(library) >= 0.98
    assert (await noted(library)).rows == ROWS
    await fill(library, "more", range(ROWS + 500, ROWS + 2_000))
    await upkeep.optimise(NOTES)
    assert (await noted(library)).rows == ROWS + 2_000
    assert await recall(library) >= 0.98


async def test_an_index_by_another_metric_is_asked_by_its_own_until_it_is_made_anew(library: Library):
    await fill(library, "d", range(ROWS))
    table = await library.shelf.open(NOTES, "")
    config = IvfRq(distance_type="dot", target_partition_size=near.PART_ROWS)
    await table.create_index("vector", config=config, name="vector_idx")
    written = {"near": json.dumps({"probes": 32, "refine": 10, "rows": ROWS})}
    await table.update_field_metadata({"path": "vector", "metadata": written})
    assert (await noted(library)).metric == "dot"
    assert await recall(library) >= 0.98
    await Maintenance(library, None).optimise(NOTES)
    assert (await noted(library)).metric == METRIC
    assert await recall(library) >= 0.98


async def test_t12_erasing_a_document_leaves_a_large_collection_with_an_index(library: Library):
    await fill(library, "d", range(ROWS))
    await fill(library, "x", range(ROWS, ROWS + 10))
    await Maintenance(library, None).optimise(NOTES)
    await library.remove("acme", "notes", "x")
    await Rebuild(library).purge(NOTES)
    await Maintenance(library, None).optimise(NOTES)
    table = (await library.shelf.snapshot(NOTES)).table
    assert (await table.index_stats("vector_idx")).num_indexed_rows == ROWS
    assert await recall(library) >= 0.98
