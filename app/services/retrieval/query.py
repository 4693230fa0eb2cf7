"""What a search accepts, the same for every retriever."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from app.names import HANDBOOK, SHARED_TENANT
from graphs.errors import Invalid

__all__ = ["HANDBOOK", "SHARED_TENANT", "checked_limit", "checked_query", "checked_where", "facet", "facets"]

LIMIT_QUERY_CHARS = 8_000
LIMIT_RESULTS = 100

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


def checked_query(query: str) -> str:
    """The query without surrounding blanks, lone surrogates replaced. Raises Invalid if it is empty or too long."""
    if len(query) > LIMIT_QUERY_CHARS:
        raise Invalid(f"a query has at most {LIMIT_QUERY_CHARS} characters, this one {len(query)}", field="query")
    clean = query.encode("utf-8", "replace").decode().replace("\x00", " ").strip()
    if not clean:
        raise Invalid("the query is empty", field="query")
    return clean


def checked_limit(limit: int) -> int:
    if not 1 <= limit <= LIMIT_RESULTS:
        raise Invalid(f"limit is 1 to {LIMIT_RESULTS}, not {limit}", field="limit")
    return limit


def facet(key: str, value: Any) -> str:
    """One equality as one line, `key=value` in JSON: equal values give equal lines, and no value can end a line.

    Values are text, numbers, booleans or None; 1 and 1.0 are one value, 1 and true are two. Raises Invalid.
    """
    if not _KEY.fullmatch(key):
        raise Invalid("a filter's key is 1 to 64 of A-Z a-z 0-9 _ . - and begins with a letter or _", field="where")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Invalid(f"the filter on {key} is not a finite number", field="where")
        value = int(value) if value.is_integer() else value
    if value is not None and not isinstance(value, str | int | float):
        raise Invalid(f"the filter on {key} must be text, a number, a boolean or null", field="where")
    return f"{key}={json.dumps(value)}"


def checked_where(where: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The equalities as facets, all of which a passage must have."""
    return tuple(facet(key, value) for key, value in (where or {}).items())


def facets(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The facets that metadata gives; entries that no filter could name (odd keys, nested values) give none."""
    found = []
    for key, value in metadata.items():
        scalar = value is None or isinstance(value, str | int | float)
        if scalar and _KEY.fullmatch(key) and not (isinstance(value, float) and not math.isfinite(value)):
            found.append(facet(key, value))
    return tuple(found)
