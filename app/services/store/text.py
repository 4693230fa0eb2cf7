"""Text that both databases can hold.

PostgreSQL refuses NUL in text and JSON, and neither database can encode a lone surrogate; both arrive in real prompts,
documents and model output. They become U+FFFD here, at the columns, so that no method of the store can forget to.
"""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import orjson

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean(text: str) -> str:
    """`text` with each NUL and each lone surrogate replaced by U+FFFD; every other text comes back as it is."""
    if text.isascii():
        return text if "\0" not in text else text.replace("\0", "\ufffd")
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


def json_text(value: Any) -> str:
    """The JSON of a value, cleaned. What needs no cleaning, nearly everything, is written as it stands."""
    try:
        written = orjson.dumps(value)
    except TypeError:  # a lone surrogate, a key that is no text, a number beyond 64 bits
        written = b""
    if written and b"\\u0000" not in written:
        return written.decode()
    return json.dumps(clean_json(value), ensure_ascii=False, separators=(",", ":"))
