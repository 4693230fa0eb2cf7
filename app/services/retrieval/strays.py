"""Compares an index at rest with the documents that the store lists, and takes out what is not listed."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from app.services.retrieval.commit import committed, guarded
from app.services.retrieval.embedders import Embedders
from app.services.retrieval.locks import Locks
from app.services.retrieval.place import Place
from app.services.retrieval.shelf import Shelf

Name = tuple[str, str, str]  # tenant, collection, document


async def mend(folder: Path, listed: Iterable[Name]) -> tuple[int, list[Name]]:
    """How many documents of the index were not listed and are erased now; which listed ones the index lacks.

    A document without a record was being taken in or removed: in neither case has anybody been told that it is there.
    """
    import lancedb

    wanted = dict[str, dict[str, Name]]()
    for name in listed:
        wanted.setdefault(Place(name[0], name[1]).base, {})[name[2]] = name
    database = await lancedb.connect_async(str(folder), read_consistency_interval=timedelta(0))
    shelf = Shelf(database, Locks(folder / ".locks"), Embedders())
    erased, lacking = 0, dict(wanted)
    try:
        for base in await shelf.names():
            place = Place("", "", base)
            table = await shelf.open(place, (await shelf.standing(place)).live, foreign=True)
            held = set((await guarded(table.query().select(["document_id"]).to_arrow()))["document_id"].to_pylist())
            known = wanted.get(base, {})
            strays = sorted(held - known.keys())
            if strays:
                await _erase(shelf, place, strays)
            erased += len(strays)
            lacking[base] = {document_id: name for document_id, name in known.items() if document_id not in held}
    finally:
        shelf.close()
    return erased, sorted(name for names in lacking.values() for name in names.values())


async def _erase(shelf: Shelf, place: Place, document_ids: list[str]) -> None:
    """As `Library.remove` does, for a collection whose name is not known."""
    from lancedb.expr import col, lit

    gone = col("document_id").isin([lit(document_id) for document_id in document_ids])
    async with shelf.turn(place):
        for build in reversed((await shelf.standing(place)).held):
            table: Any = await shelf.open(place, build, foreign=True)
            await committed(partial(table.delete, gone))
            await shelf.note(place, "erased", build, version=await guarded(table.version()))
