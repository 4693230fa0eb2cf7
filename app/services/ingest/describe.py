"""What callers may call a document and say about it."""

import json
from collections.abc import Mapping
from typing import Any, Final

from app.sight import names_groups
from graphs.errors import Invalid

LIMIT_ID_CHARS: Final = 512
LIMIT_METADATA_CHARS: Final = 16_384


def checked_document_id(document_id: str) -> str:
    """Any printable text: no line ends, no control or invisible characters, no lone surrogates."""
    if not 1 <= len(document_id) <= LIMIT_ID_CHARS or not document_id.isprintable() or document_id.isspace():
        raise Invalid(f"a document's id is 1 to {LIMIT_ID_CHARS} printable characters", field="id")
    return document_id


def checked_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A copy as plain JSON. Raises Invalid for what JSON cannot hold and for more than 16,384 characters of it."""
    try:
        written = json.dumps(dict(metadata), allow_nan=False)
        copy: dict[str, Any] = json.loads(written)
        written.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid("metadata must be a JSON object", field="metadata") from error
    if any(map(names_groups, copy)):
        raise Invalid("whom a document is for is told beside its metadata, not in it", field="metadata")
    if len(written) > LIMIT_METADATA_CHARS:
        raise Invalid(f"metadata has {len(written)} characters, at most {LIMIT_METADATA_CHARS}", field="metadata")
    return copy
