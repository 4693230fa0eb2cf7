"""Turns whatever a span or a log line is given into JSON-able data of bounded size."""

import dataclasses
import math
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from pydantic import BaseModel

from app.telemetry.redact import redact

MAX_TEXT_CHARS = 16_000  # a full prompt of the embedded model (4,096 tokens) fits uncut
MAX_ITEMS = 200
MAX_DEPTH = 8
MAX_EXACT_INT = 2**53  # above it JSON readers in browsers round


def safe(value: Any, *, max_text_chars: int = MAX_TEXT_CHARS, depth: int = MAX_DEPTH) -> Any:
    """`value` as JSON-able data; long texts are cut with a marker, key-shaped strings redacted, bytes counted."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return safe(value.value, max_text_chars=max_text_chars, depth=depth)
    if isinstance(value, str):
        return _text(value, max_text_chars)
    if isinstance(value, int):
        return int(value) if abs(value) <= MAX_EXACT_INT else _text(hex(value), max_text_chars)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, datetime):
        return value.isoformat()
    if depth == 0:
        return f"<{type(value).__name__}>"

    def inner(item: Any) -> Any:
        return safe(item, max_text_chars=max_text_chars, depth=depth - 1)

    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: inner(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, BaseModel):
        return inner(value.model_dump())
    if isinstance(value, Mapping):
        kept = {_text(str(key), 200): inner(item) for key, item in list(value.items())[:MAX_ITEMS]}
        return kept | ({"…": f"{len(value) - MAX_ITEMS} more"} if len(value) > MAX_ITEMS else {})
    if isinstance(value, list | tuple | set | frozenset):
        items = [inner(item) for item in list(value)[:MAX_ITEMS]]
        return items + ([f"… {len(value) - MAX_ITEMS} more"] if len(value) > MAX_ITEMS else [])
    return f"<{type(value).__name__}>"


def _text(text: str, limit: int) -> str:
    if len(text) > limit:
        text = f"{text[:limit]}… [{len(text) - limit} more characters]"
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode()  # lone surrogates reach no database
    return redact(text)


def safe_items(values: Mapping[str, Any]) -> dict[str, Any]:
    """`safe` of each value; one that cannot be read becomes a note of that, so that telemetry fails no run."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        try:
            kept[name] = safe(value)
        except Exception as error:
            kept[name] = f"<unreadable: {type(error).__name__}>"
    return kept
