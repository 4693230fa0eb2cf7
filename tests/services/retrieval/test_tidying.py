"""Writes do not pay for indexing again and again."""

from pathlib import Path

import pytest

from app.services.retrieval import tidying
from app.services.retrieval.embedder import MiniLmEmbedder
from app.services.retrieval.library import Library
from app.services.retrieval.maintenance import Maintenance
from app.services.retrieval.place import Place
from app.services.retrieval.tidying import FEW, REST, Tidying
from tests.services.retrieval.entries import Doc, Piece

NOTES = Place("acme", "notes")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_few_rows_beside_many_wait_for_the_round():
    assert not Tidying().is_due("t", 1_000_000, FEW)
    assert Tidying().is_due("t", 1_000_000, FEW + 1)


def test_rows_beside_an_empty_index_do_not_wait():
    """They would be ranked as if each word were as common as any other."""
    assert Tidying().is_due("t", 0, 1)


def test_a_table_rests_ten_times_as_long_as_it_took_and_holds_up_no_other():
    tidies = Tidying(clock := Clock())
    with pytest.raises(OSError), tidies.taking("t"):
        clock.now_s += 6
        raise OSError
    clock.now_s += 6 * REST - 1
    assert not tidies.is_due("t", 0, 10_000)
    assert tidies.is_due("other", 0, 10_000)
    clock.now_s += 1
    assert tidies.is_due("t", 0, 10_000)


async def test_rows_that_no_write_has_indexed_are_found_and_the_round_indexes_them(
    tmp_path: Path, embedder: MiniLmEmbedder, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tidying, "QUICK_S", -1.0)
    monkeypatch.setattr(tidying, "REST", 1e6)
    library = await Library.open(tmp_path / "lance", embedder)
    (vector,) = await embedder.embed(["key"])
    for number in range(3):
        pieces = tuple(
            Piece(f"{'zebra' if place == 49 and number == 2 else 'key'} {number} {place}") for place in range(50)
        )
        await library.replace("acme", "notes", [Doc(f"d{number}", "", pieces, vector[None].repeat(50, 0))])

    async def unindexed() -> int:
        return (await (await library.shelf.snapshot(NOTES)).table.index_stats("words_idx")).num_unindexed_rows

    assert await unindexed() == 100
    found = await library.search("acme", "notes", "zebra", limit=1)
    assert found.passages[0].text == "zebra 2 49"
    await Maintenance(library, None).round()
    assert await unindexed() == 0
    await library.close()
