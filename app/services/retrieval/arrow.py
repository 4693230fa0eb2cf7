"""Documents as rows of Arrow, as LanceDB takes them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from app.services.retrieval.recipe import dimensions_of
from app.services.retrieval.table import Entry, rows
from graphs.errors import Conflict


def arrow(tenant_id: str, collection: str, entries: Sequence[Entry], layout: Any) -> Any:
    """The entries' rows with their vectors, in that schema. Raises Conflict for vectors of another length."""
    import pyarrow as pa  # Lazy, as lancedb is: 47 MB

    table = pa.Table.from_pylist(list(rows(tenant_id, collection, entries)), schema=layout.remove(len(layout) - 1))
    dimensions = dimensions_of(layout)
    if wrong := {entry.vectors.shape[1] for entry in entries} - {dimensions}:
        raise Conflict(f"vectors of {wrong.pop()} dimensions cannot lie beside vectors of {dimensions}")
    vectors = np.concatenate([entry.vectors for entry in entries]).astype(np.float32).reshape(-1)
    column = pa.FixedSizeListArray.from_arrays(vectors, dimensions)
    return table.append_column(layout.field("vector"), column).cast(layout)
