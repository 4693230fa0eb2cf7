"""Compares an index at rest with the documents that the store lists, and can take out what is not listed."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from app.buckets import Bucket
from app.services.retrieval.commit import committed, guarded
from app.services.retrieval.embedders import Embedders
from app.services.retrieval.opening import opened
from app.services.retrieval.place import Place
from app.services.retrieval.shelf import Shelf

Name = tuple[str, str, str]  # tenant, collection, document


async def compared(where: Path | Bucket, listed: Iterable[Name], *, erase: bool) -> tuple[int, list[Name]]:
    """How many documents of the index are not listed, and gone now if they are to be erased; which listed ones the
    index lacks.

    In an index that was copied with its store, a document without a record was being taken in or removed: in neither
    case has anybody been told that it is there. Raises what `Bucket.check` does, IndexFailed.
    """
    wanted = dict[str, dict[str, Name]]()
    for name in listed:
        wanted.setdefault(Place(name[0], name[1]).base, {})[name[2]] = name
    shelf = await opened(where, Embedders())
    unlisted, lacking = 0, dict(wanted)
    try:
        for base in await shelf.names():
            place = Place("", "", base)
            table = await shelf.open(place, (await shelf.standing(place)).live, foreign=True)
            held = set((await guarded(table.query().select(["document_id"]).to_arrow()))["document_id"].to_pylist())
            known = wanted.get(base, {})
            strays = sorted(held - known.keys())
            if strays and erase:
                await _erase(shelf, place, strays)
            unlisted += len(strays)
            lacking[base] = {document_id: name for document_id, name in known.items() if document_id not in held}
    finally:
        shelf.close()
    return unlisted, sorted(name for names in lacking.values() for name in names.values())


async def _erase(shelf: Shelf, place: Place, document_ids: list[str]) -> None:
    """As `Library.remove` does, for a collection whose name is not known."""
    from lancedb.expr import col, lit

    gone = col("document_id").isin([lit(document_id) for document_id in document_ids])
    async with shelf.turn(place):
        for build in reversed((await shelf.standing(place)).held):
            table: Any = await shelf.open(place, build, foreign=True)
            await committed(partial(table.delete, gone))
            await shelf.note(place, "erased", build, version=await guarded(table.version()))
