"""Turns whatever a span or a log line is given into JSON-able data of bounded size."""

import dataclasses
import math
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import Enum
from itertools import islice
from typing import Any

from pydantic import BaseModel

from app.telemetry.redact import redact

MAX_TEXT_CHARS = 16_000  # a full prompt of the embedded model (4,096 tokens) fits uncut
MAX_ITEMS = 200
MAX_DEPTH = 8
MAX_EXACT_INT = 2**53  # above it JSON readers in browsers round


def safe(value: Any, *, max_text_chars: int = MAX_TEXT_CHARS, depth: int = MAX_DEPTH) -> Any:
    """`value` as JSON-able data; long texts are cut with a marker, key-shaped strings redacted, bytes counted."""
    # By exact type first: asking abstract classes costs ten times as much, and nearly every value is one of these.
    kind = type(value)
    if kind is str:
        return _text(value, max_text_chars)
    if value is None or kind is bool:
        return value
    if kind is int:
        return value if -MAX_EXACT_INT <= value <= MAX_EXACT_INT else _text(hex(value), max_text_chars)
    if kind is float:
        return value if math.isfinite(value) else str(value)
    if depth and kind is dict:
        return _mapping(value, max_text_chars, depth - 1)
    if depth and (kind is tuple or kind is list):
        return _items(value, max_text_chars, depth - 1)
    return _rare(value, max_text_chars, depth)


def _rare(value: Any, limit: int, depth: int) -> Any:
    """What is no value of JSON by its exact type."""
    if isinstance(value, Enum):
        return safe(value.value, max_text_chars=limit, depth=depth)
    if isinstance(value, str):
        return _text(value, limit)
    if isinstance(value, int):
        return safe(int(value), max_text_chars=limit, depth=depth)
    if isinstance(value, float):
        return safe(float(value), max_text_chars=limit, depth=depth)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, datetime):
        return value.isoformat()
    if depth == 0:
        return f"<{type(value).__name__}>"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        given = {name: getattr(value, name) for name in type(value).__dataclass_fields__}
        return {name: safe(item, max_text_chars=limit, depth=depth - 1) for name, item in given.items()}
    if isinstance(value, BaseModel):
        return safe(value.model_dump(), max_text_chars=limit, depth=depth - 1)
    if isinstance(value, Mapping):
        return _mapping(value, limit, depth - 1)
    if isinstance(value, list | tuple | set | frozenset):
        return _items(value, limit, depth - 1)
    return f"<{type(value).__name__}>"


def _mapping(value: Mapping[Any, Any], limit: int, depth: int) -> dict[str, Any]:
    kept = {
        _text(str(key), 200): safe(item, max_text_chars=limit, depth=depth)
        for key, item in islice(value.items(), MAX_ITEMS)
    }
    if len(value) > MAX_ITEMS:
        kept["…"] = f"{len(value) - MAX_ITEMS} more"
    return kept


def _items(value: Collection[Any], limit: int, depth: int) -> list[Any]:
    items = [safe(item, max_text_chars=limit, depth=depth) for item in islice(value, MAX_ITEMS)]
    if len(value) > MAX_ITEMS:
        items.append(f"… {len(value) - MAX_ITEMS} more")
    return items


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
