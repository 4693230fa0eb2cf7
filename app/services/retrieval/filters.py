"""Metadata filters as a typed tree: what callers may ask of a passage's metadata, never a string of theirs.

As JSON: `{"lang": "en"}` is an equality, `{"year": {"gte": 2020, "lt": 2025}}` holds operators, and `and`, `or`
(lists) and `not` (an object) combine objects of that kind. All entries of one object must hold.

Only scalars of metadata are seen. 1 and 1.0 are one value, 1 and true are two. Numbers compare as 64-bit floats;
text compares by ASCII (dates in ISO form, versions of one width) and never with a number.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from app.sight import names_groups
from graphs.errors import Invalid

LIMIT_DEPTH = 6  # levels of objects below the outermost
LIMIT_CONDITIONS = 64  # conditions in all, each member of an `in` counted
LIMIT_TEXT_CHARS = 2_000

Scalar: TypeAlias = str | int | float | bool | None
Order = Literal["lt", "lte", "gt", "gte"]

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_ORDERED_TEXT = re.compile(r"[ !#-\[\]-~]*")  # printable ASCII that JSON writes as it stands
_ORDERS: Mapping[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt,
    "lte": operator.le,
    "gt": operator.gt,
    "gte": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Equals:
    """The facet, as `facet` writes it, is there."""

    facet: str


@dataclass(frozen=True, slots=True)
class Compares:
    key: str
    order: Order
    bound: str | float


@dataclass(frozen=True, slots=True)
class Exists:
    key: str


@dataclass(frozen=True, slots=True)
class Not:
    part: "Filter"


@dataclass(frozen=True, slots=True)
class All:
    parts: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    parts: tuple["Filter", ...]


Filter: TypeAlias = Equals | Compares | Exists | Not | All | AnyOf


def parse_filter(where: Mapping[str, Any] | None) -> Filter | None:
    """The tree of a filter's JSON; None where there is nothing to filter. Raises Invalid naming the fault."""
    if not where:
        return None
    parsed = _object(where, LIMIT_DEPTH)
    if (conditions := sum(1 for _ in _leaves(parsed))) > LIMIT_CONDITIONS:
        raise _fault(f"a filter has at most {LIMIT_CONDITIONS} conditions, this one {conditions}")
    return parsed


def holds(filter_: Filter, metadata: Mapping[str, Any]) -> bool:
    """Whether metadata passes: what the index's own predicate says, for retrievers without an index."""
    match filter_:
        case Equals():
            return filter_.facet in facets(metadata)
        case Exists():
            return any(found.startswith(f"{filter_.key}=") for found in facets(metadata))
        case Compares():
            return _compares(filter_, metadata.get(filter_.key))
        case Not():
            return not holds(filter_.part, metadata)
        case All():
            return all(holds(part, metadata) for part in filter_.parts)
        case AnyOf():
            return any(holds(part, metadata) for part in filter_.parts)


def facet(key: str, value: Any) -> str:
    """One equality as one line, `key=value` in JSON: equal values give equal lines, and no value can end a line.

    Values are text, numbers, booleans or None. Raises Invalid.
    """
    if not _KEY.fullmatch(key):
        raise _fault("a filter's key is 1 to 64 of A-Z a-z 0-9 _ . - and begins with a letter or _")
    if names_groups(key):
        raise _fault("no filter asks whom a document is for: each search keeps to what its caller may see")
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _fault(f"the filter on {key} is not a finite number")
        value = int(value) if value.is_integer() else value
    if value is not None and not isinstance(value, str | int | float):
        raise _fault(f"the filter on {key} must be text, a number, a boolean or null")
    return f"{key}={json.dumps(value)}"


def facets(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """The facets that metadata gives; entries that no filter could name (odd keys, nested values) give none."""
    found = []
    for key, value in metadata.items():
        try:
            found.append(facet(key, value))
        except Invalid:
            continue
    return tuple(found)


def _object(where: Any, depth: int) -> Filter:
    if not isinstance(where, Mapping) or not where:
        raise _fault("each part of a filter is an object with at least one entry")
    if depth < 0:
        raise _fault(f"a filter is nested at most {LIMIT_DEPTH} deep")
    parts = [part for key, value in where.items() for part in _entry(key, value, depth)]
    return parts[0] if len(parts) == 1 else All(tuple(parts))


def _entry(key: str, value: Any, depth: int) -> Iterator[Filter]:
    """`and`, `or` and `not` are words of the language only where what follows them is not a scalar."""
    if key in ("and", "or") and isinstance(value, list):
        if not 1 <= len(value) <= LIMIT_CONDITIONS:
            raise _fault(f"`{key}` is a list of 1 to {LIMIT_CONDITIONS} objects")
        parts = tuple(_object(part, depth - 1) for part in value)
        yield All(parts) if key == "and" else AnyOf(parts)
    elif key == "not" and isinstance(value, Mapping):
        yield Not(_object(value, depth - 1))
    elif isinstance(value, Mapping):
        if not value:
            raise _fault("an object of operators has at least one of them")
        for verb, operand in value.items():
            yield _condition(key, verb, operand)
    else:
        yield Equals(_asked(key, value))


def _condition(key: str, verb: Any, operand: Any) -> Filter:
    if verb == "eq":
        return Equals(_asked(key, operand))
    if verb == "ne":
        return Not(Equals(_asked(key, operand)))
    if verb == "in":
        if not isinstance(operand, Sequence) or isinstance(operand, str) or not 1 <= len(operand) <= LIMIT_CONDITIONS:
            raise _fault(f"`in` on {_named(key)} takes a list of 1 to {LIMIT_CONDITIONS} values")
        return AnyOf(tuple(Equals(_asked(key, value)) for value in operand))
    if verb == "exists":
        if not isinstance(operand, bool):
            raise _fault(f"`exists` on {_named(key)} takes true or false")
        return Exists(_named(key)) if operand else Not(Exists(_named(key)))
    if verb in _ORDERS:
        return Compares(_named(key), cast(Order, verb), _bound(key, operand))
    raise _fault("an operator is one of eq, ne, in, lt, lte, gt, gte, exists")


def _bound(key: str, operand: Any) -> str | float:
    _asked(key, operand)
    if isinstance(operand, str):
        if not _ORDERED_TEXT.fullmatch(operand):
            raise _fault(f"text is ordered by printable ASCII without quotes and backslashes, on {key} there is more")
        return operand
    if operand is None or isinstance(operand, bool):
        raise _fault(f"the bound on {key} must be text or a number")
    try:
        return float(operand)
    except OverflowError as error:
        raise _fault(f"the bound on {key} is not a finite number") from error


def _asked(key: str, value: Any) -> str:
    if isinstance(value, str) and len(value) > LIMIT_TEXT_CHARS:
        raise _fault(f"the filter on {_named(key)} has more than {LIMIT_TEXT_CHARS} characters")
    return facet(key, value)


def _compares(wanted: Compares, value: Any) -> bool:
    if isinstance(wanted.bound, str):
        comparable = isinstance(value, str) and _ORDERED_TEXT.fullmatch(value) is not None
    else:
        # A float that is not finite has no facet; an integer beyond floats is compared as it stands.
        finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
        comparable = finite and not isinstance(value, bool)
    return comparable and bool(_ORDERS[wanted.order](value, wanted.bound))


def _named(key: str) -> str:
    return facet(key, None).removesuffix("=null")


def _leaves(filter_: Filter) -> Iterator[Filter]:
    match filter_:
        case Not():
            yield from _leaves(filter_.part)
        case All() | AnyOf():
            for part in filter_.parts:
                yield from _leaves(part)
        case _:
            yield filter_


def _fault(message: str) -> Invalid:
    return Invalid(message, field="where")
