"""A filter's tree as the index reads it: one SQL expression over the column of facets.

LanceDB's typed expressions know no order and no functions (0.40), so this is text; it is made here alone, from a parsed
tree. Keys passed the allow-list, values are ASCII JSON, and every piece is a literal with its quotes doubled.
"""

import json
from typing import Final

from app.services.retrieval.filters import All, AnyOf, Compares, Equals, Exists, Filter, Not

LINE: Final = "\n"
# JSON escapes what is not plain ASCII: a value with a backslash is none that text order is promised for.
PLAIN_TEXT: Final = r'^"([^"\\]*)"$'
_SIGNS: Final = {"lt": "<", "lte": "<=", "gt": ">", "gte": ">="}


def predicate(filter_: Filter) -> str:
    """Never null for any row: `NOT` of it is its complement."""
    match filter_:
        case Equals():
            return f"contains(facets, {literal(LINE + filter_.facet + LINE)})"
        case Exists():
            return f"contains(facets, {_opening(filter_.key)})"
        case Compares():
            return f"coalesce({_side(filter_)} {_SIGNS[filter_.order]} {_bound(filter_.bound)}, false)"
        case Not():
            return f"(NOT {predicate(filter_.part)})"
        case All():
            return "(" + " AND ".join(map(predicate, filter_.parts)) + ")"
        case AnyOf():
            return "(" + " OR ".join(map(predicate, filter_.parts)) + ")"


def _side(filter_: Compares) -> str:
    """The row's value under the key; null where there is none of the bound's type."""
    value = f"split_part(split_part(facets, {_opening(filter_.key)}, 2), {literal(LINE)}, 1)"
    if isinstance(filter_.bound, str):
        return f"array_element(regexp_match({value}, {literal(PLAIN_TEXT)}), 1)"
    return f"try_cast({value} AS double)"


def _bound(bound: str | float) -> str:
    return literal(bound) if isinstance(bound, str) else f"try_cast({literal(json.dumps(bound))} AS double)"


def _opening(key: str) -> str:
    return literal(f"{LINE}{key}=")


def literal(text: str) -> str:
    """Text as SQL writes it. The caller has seen to it that it is text that can be written."""
    return "'" + text.replace("'", "''") + "'"
