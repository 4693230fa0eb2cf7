"""Documents as rows of Arrow, as LanceDB takes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.services.retrieval.embedder import Embedder
from app.services.retrieval.table import Entry, rows, schema


def arrow(tenant_id: str, collection: str, entries: Sequence[Entry], embedder: Embedder) -> Any:
    """The entries' rows with their vectors, as a table of the embedder's schema."""
    import pyarrow as pa  # Lazy, as lancedb is: 47 MB

    layout = schema(embedder.id, embedder.dimensions)
    table = pa.Table.from_pylist(list(rows(tenant_id, collection, entries)), schema=layout.remove(len(layout) - 1))
    vectors = np.concatenate([entry.vectors for entry in entries]).astype(np.float32).reshape(-1)
    column = pa.FixedSizeListArray.from_arrays(vectors, embedder.dimensions)
    return table.append_column(layout.field("vector"), column).cast(layout)
