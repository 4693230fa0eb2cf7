"""Text that both databases can hold.

PostgreSQL refuses NUL in text and JSON, and neither database can encode a lone surrogate; both arrive in real prompts,
documents and model output. They become U+FFFD here, at the columns, so that no method of the store can forget to.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` with each NUL and each lone surrogate replaced by U+FFFD; every other text comes back as it is."""
    return _UNSTORABLE.sub("\ufffd", text)


def clean_json(value: Any) -> Any:
    """The same for all texts and keys of a JSON value; tuples become lists, NaN and the infinities null."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {clean(str(key)): clean_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
