"""Opens where an index lies, a folder or a bucket, with the turns that its writers take there."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path

from app.buckets import Bucket
from app.services.retrieval.bucket_turns import BucketTurns
from app.services.retrieval.embedders import Embedders
from app.services.retrieval.locks import Locks
from app.services.retrieval.shelf import Shelf


async def opened(where: Path | Bucket, embedders: Embedders) -> Shelf:
    """Creates the folder if need be, and tries whether a bucket will do. Raises what `Bucket.check` does."""
    # Lazy: importing it costs more than a second; the thread leaves the event loop free meanwhile.
    lancedb = await asyncio.to_thread(import_module, "lancedb")
    options: Mapping[str, str] = {}
    if isinstance(where, Bucket):
        await where.check()  # noqa: ASYNC240 (not a path)
        options = where.lance_options
    # Zero: every look at a version sees what other processes have committed.
    database = await lancedb.connect_async(str(where), read_consistency_interval=timedelta(0), storage_options=options)
    return Shelf(database, Locks(BucketTurns(where) if isinstance(where, Bucket) else where / ".locks"), embedders)
